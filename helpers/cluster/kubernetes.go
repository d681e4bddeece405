// The parts of a control plane in one program, chosen by its first argument: what they share is
// compiled, linked and stored once.
package main

import (
	"fmt"
	"math/rand"
	"os"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	manager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

func main() {
	rand.Seed(time.Now().UnixNano())
	logs.InitLogs()
	defer logs.FlushLogs()
	parts := &cobra.Command{Use: "kubernetes", SilenceUsage: true}
	parts.AddCommand(
		apiserver.NewAPIServerCommand(),
		manager.NewControllerManagerCommand(),
		scheduler.NewSchedulerCommand(),
	)
	if err := parts.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
