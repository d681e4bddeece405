/* The least that a container from scratch costs: clone into the same namespaces, pivot_root, exec.
 *
 *   container ROOT PROGRAM [ARGUMENT...]     as root; ROOT holds the folders dev and proc
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int inside(void *words)
{
    char **argument = words, *root = argument[0], path[4096], outer[64];
    const char *devices[] = {"null", "zero", "urandom"};
    if (sethostname("box", 3) || mount("none", "/", 0, MS_REC | MS_PRIVATE, 0) ||
        mount(root, root, 0, MS_BIND | MS_REC, 0))
        err(126, "mount");
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/dev/%s", root, devices[i]);
        snprintf(outer, sizeof outer, "/dev/%s", devices[i]);
        close(open(path, O_CREAT | O_WRONLY, 0600));
        if (mount(outer, path, 0, MS_BIND, 0))
            err(126, "mount %s", path);
    }
    snprintf(path, sizeof path, "%s/proc", root);
    if (mount("proc", path, "proc", 0, 0) || chdir(root) || syscall(SYS_pivot_root, ".", ".") ||
        umount2(".", MNT_DETACH) || chdir("/"))
        err(126, "pivot_root");
    execv(argument[1], argument + 1);
    err(126, "%s", argument[1]);
}

int main(int count, char **words)
{
    static char stack[65536];
    int flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET |
                CLONE_NEWCGROUP | SIGCHLD;
    int state, child = count < 3 ? -1 : clone(inside, stack + sizeof stack, flags, words + 1);
    if (child < 0 || waitpid(child, &state, 0) < 0)
        err(126, "clone");
    return WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
}
