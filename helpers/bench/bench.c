/* One small benchmark, the same program in every place: process, container, virtual machine.
 *
 *   bench rows SECONDS DIR [ROW...]      measure for SECONDS each; lines of row,value,unit,note
 *   bench serve [ADDRESS:]PORT           a small HTTP server; says "ready PORT" (0: any free one)
 *   bench load ADDRESS PORT SECONDS [CONNECTIONS]     ask a server as fast as it answers
 *   bench true                           end at once: what is left is the time to start
 *
 * DIR is a folder, or an empty block device. The rows follow Felter, Ferreira, Rajamony, Rubio:
 * "An Updated Performance Comparison of Virtual Machines and Linux Containers" (IBM RC25482, 2014)
 * as far as they fit in a small static program; each says which of theirs it stands for.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MB = 1 << 20, BLOCK = 4096, DISK_SIZE = 64 * MB, MOST_CONNECTIONS = 1024 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static _Noreturn void fail(int status, const char *format, ...)
{
    va_list words;
    va_start(words, format);
    fputs("bench: ", stderr);
    vfprintf(stderr, format, words);
    fputc('\n', stderr);
    exit(status);
}

static void too_late(int signal)
{
    (void)signal;
    fail(1, "This took too long and was given up.");
}

/* ---- Rows. Each function does a small batch of work and returns how much it was. ---- */

static const char *note = "";  /* why a row has no value */
static const char *target;     /* where the disk rows work */
static void *memory;           /* what a memory row works on; given back after it */
static uint64_t seed;          /* state of the pseudo-random numbers */

static double unmeasured(const char *why)
{
    note = why;
    return NAN;
}

static uint64_t xorshift(uint64_t x)
{
    x ^= x << 13;
    x ^= x >> 7;
    return x ^ x << 17;
}

/* Processor, integers: steps of a pseudo-random generator (theirs: PXZ compression). */
static double integer(void)
{
    uint64_t x = seed;
    for (int i = 0; i < MB; i++)
        x = xorshift(x);
    seed = x;
    return MB;
}

/* Processor, floating point: LU factorisation of a 400 x 400 matrix (theirs: Linpack). */
static double lu(void)
{
    enum { N = 400 };
    static double a[N][N];
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            a[i][j] = i == j ? N : 1.0 / (1 + i + j); /* large diagonal: no pivoting needed */
    for (int p = 0; p < N; p++)
        for (int i = p + 1; i < N; i++) {
            double factor = a[i][p] /= a[p][p];
            for (int j = p + 1; j < N; j++)
                a[i][j] -= factor * a[p][j];
        }
    return 2.0 / 3 * N * N * N;
}

/* Memory, in a row: a[i] = b[i] + 3 c[i] over 96 MB (theirs: STREAM triad). */
static double triad(void)
{
    enum { N = 4 * MB };
    double *a = memory, *b, *c;
    if (!a) {
        if (!(a = memory = malloc(3 * N * sizeof *a)))
            return unmeasured("not enough memory");
        for (int i = 0; i < 3 * N; i++)
            a[i] = 1;
    }
    b = a + N;
    c = b + N;
    for (int i = 0; i < N; i++)
        a[i] = b[i] + 3 * c[i];
    return 3.0 * N * sizeof *a;
}

/* Memory, all over: updates at random places of 64 MB (theirs: RandomAccess, one thread). */
static double random_access(void)
{
    enum { N = 8 * MB };
    uint64_t *table = memory, x = seed;
    if (!table && !(table = memory = calloc(N, sizeof *table)))
        return unmeasured("not enough memory");
    for (int i = 0; i < MB; i++) {
        x = xorshift(x);
        table[x % N] ^= x;
    }
    seed = x;
    return MB;
}

/* Kernel: the shortest system call, getppid (not in theirs; lmbench's "null call"). */
static double system_call(void)
{
    for (int i = 0; i < 10000; i++)
        syscall(SYS_getppid);
    return 10000;
}

/* Kernel: the first touch of a page of memory (not in theirs; lmbench's "page fault"). */
static double page_fault(void)
{
    enum { SIZE = 8 * MB };
    char *p = mmap(0, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return unmeasured("not enough memory");
    madvise(p, SIZE, MADV_NOHUGEPAGE);
    for (int i = 0; i < SIZE; i += BLOCK)
        *(volatile char *)(p + i) = 1;
    munmap(p, SIZE);
    return SIZE / BLOCK;
}

/* Kernel: make a process that ends, and collect it (not in theirs; lmbench's "fork"). */
static double process_creation(void)
{
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    if (child < 0 || waitpid(child, 0, 0) < 0)
        return unmeasured("the system refuses another process");
    return 1;
}

static char buffer[MB] __attribute__((aligned(BLOCK)));
static off_t filled; /* bytes of the disk that have been written */

/* Open what the disk rows work on: a block device, or a file that loses its name at once. */
static int disk(void)
{
    static int fd = -1;
    struct stat about;
    struct statfs system;
    char path[BLOCK];
    if (fd >= 0)
        return fd;
    if (stat(target, &about) == 0 && S_ISBLK(about.st_mode)) {
        fd = open(target, O_RDWR | O_EXCL);
        ssize_t size = fd < 0 ? 0 : pread(fd, buffer, MB, 0);
        for (ssize_t i = 0; i < size; i++)
            if (buffer[i] != 0 && buffer[i] != 'b') /* neither empty nor written by a former run */
                fail(2, "%s holds data, which measuring would destroy.", target);
    } else {
        snprintf(path, sizeof path, "%s/bench-%d.tmp", target, getpid());
        fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
        unlink(path);
        uint32_t type = fstatfs(fd, &system) == 0 ? (uint32_t)system.f_type : 0;
        if (type == 0x01021994 || type == 0x858458f6) { /* tmpfs, ramfs */
            close(fd);
            fd = -1;
            errno = ENODEV; /* memory, and no disk */
        }
    }
    memset(buffer, 'b', sizeof buffer);
    return fd;
}

/* Disk, in a row: 64 MB and fsync; ends early after 5 s (theirs: fio, sequential write). */
static double sequential_write(void)
{
    off_t written = 0;
    double start = now();
    int fd = disk();
    if (fd < 0)
        return unmeasured(errno == ENODEV ? "memory and no disk" : strerror(errno));
    fcntl(fd, F_SETFL, 0);
    while (written < DISK_SIZE && now() - start < 5) {
        if (pwrite(fd, buffer, MB, written) != MB)
            return unmeasured("the disk is full");
        written += MB;
    }
    if (fsync(fd) < 0)
        return unmeasured(strerror(errno));
    filled = written;
    return written;
}

static double random_block(bool writing)
{
    if (!filled && isnan(sequential_write()))
        return NAN;
    int fd = disk();
    if (fcntl(fd, F_SETFL, O_DIRECT) < 0)
        return unmeasured("O_DIRECT is refused: only the cache could be measured");
    seed = xorshift(seed);
    off_t place = (off_t)(seed % (filled / BLOCK)) * BLOCK;
    if ((writing ? pwrite(fd, buffer, BLOCK, place) : pread(fd, buffer, BLOCK, place)) != BLOCK)
        return unmeasured(strerror(errno));
    if (writing && fdatasync(fd) < 0)
        return unmeasured(strerror(errno));
    return 1;
}

/* Disk, all over: 4 kB reads past the cache, one at a time (theirs: fio, 128 at a time). */
static double random_read(void) { return random_block(false); }

/* Disk, all over: 4 kB writes, each made safe by fdatasync (theirs: fio, 128 at a time). */
static double random_write(void) { return random_block(true); }

static const struct row {
    const char *name, *unit;
    double (*batch)(void);
    double rate, time; /* the unit: work per second is divided by rate, or its time multiplied */
    bool once;         /* one batch is enough */
} ROWS[] = {
    {"integer", "Mops/s", integer, .rate = 1e6},
    {"lu", "GFLOP/s", lu, .rate = 1e9},
    {"triad", "GB/s", triad, .rate = 1e9},
    {"random_access", "MUP/s", random_access, .rate = 1e6},
    {"syscall", "ns", system_call, .time = 1e9},
    {"page_fault", "ns", page_fault, .time = 1e9},
    {"fork", "µs", process_creation, .time = 1e6},
    {"sequential_write", "MiB/s", sequential_write, .rate = MB, .once = true},
    {"random_read", "IOPS", random_read, .rate = 1},
    {"random_write", "IOPS", random_write, .rate = 1},
};
enum { COUNT = sizeof ROWS / sizeof *ROWS };

static void measure(const struct row *row, double seconds)
{
    double work = 0, elapsed = 0;
    alarm((unsigned)seconds + 60); /* the end of a row that hangs */
    note = "";
    seed = 88172645463325252u;
    if (!row->once)
        work = row->batch(); /* warms up, and is not counted */
    if (!isnan(work)) {
        double start = now();
        work = 0;
        do {
            work += row->batch();
            elapsed = now() - start;
        } while (elapsed < seconds && !row->once && !isnan(work));
    }
    free(memory);
    memory = 0;
    if (isnan(work))
        printf("%s,,%s,%s\n", row->name, row->unit, note);
    else
        printf("%s,%.6g,%s,\n", row->name,
               row->rate ? work / elapsed / row->rate : elapsed / work * row->time, row->unit);
    fflush(stdout);
}

static const struct row *find(const char *name)
{
    for (int i = 0; i < COUNT; i++)
        if (!strcmp(ROWS[i].name, name))
            return &ROWS[i];
    fail(2, "There is no row %s.", name);
}

static void rows(double seconds, char **names)
{
    for (char **name = names; *name; name++)
        find(*name); /* ends here if one is wrong */
    if (access(target, W_OK) < 0)
        fail(2, "%s cannot be written to: %s.", target, strerror(errno));
    for (int i = 0; !*names && i < COUNT; i++)
        measure(&ROWS[i], seconds);
    for (; *names; names++)
        measure(find(*names), seconds);
}

/* ---- HTTP, as little of it as a measurement needs (theirs: netperf TCP_RR) ---- */

static const char REQUEST[] = "GET / HTTP/1.1\r\nHost: bench\r\n\r\n";
static const char REPLY[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                            "Content-Length: 24\r\n\r\nHello from one process.\n";
static struct epoll_event events[64];
static int queue; /* of connections on which something has arrived */

static struct sockaddr_in address(const char *host, const char *port)
{
    struct sockaddr_in found = {.sin_family = AF_INET};
    char *end;
    long number = strtol(port, &end, 10);
    if (!*port || *end || number < 0 || number > 65535)
        fail(2, "%s is not a port (0 to 65535).", port);
    if (inet_pton(AF_INET, host, &found.sin_addr) != 1)
        fail(2, "%s is not an address like 127.0.0.1.", host);
    found.sin_port = htons((uint16_t)number);
    return found;
}

static void watch(int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    epoll_ctl(queue, EPOLL_CTL_ADD, fd, &event);
}

/* Read what a client has sent, answer each request (it ends with an empty line). */
static bool answer(int fd, unsigned char *seen)
{
    ssize_t size = read(fd, buffer, BLOCK);
    for (ssize_t i = 0; i < size; i++) {
        *seen = buffer[i] == "\r\n\r\n"[*seen] ? *seen + 1 : buffer[i] == '\r';
        if (*seen == 4) {
            *seen = 0;
            if (write(fd, REPLY, sizeof REPLY - 1) < 0)
                return false;
        }
    }
    return size > 0;
}

/* Answer on any number of connections, each kept open, in one process; ends after an hour. */
static void serve(const char *argument)
{
    static unsigned char seen[MOST_CONNECTIONS]; /* bytes of the empty line, by connection */
    char *where = strdup(argument), *colon = strrchr(where, ':');
    if (colon)
        *colon = 0;
    struct sockaddr_in here = address(colon ? where : "127.0.0.1", colon ? colon + 1 : where);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(listener, (void *)&here, sizeof here) < 0 || listen(listener, 1024) < 0)
        fail(1, "Port %d cannot be served: %s.", ntohs(here.sin_port), strerror(errno));
    getsockname(listener, (void *)&here, &(socklen_t){sizeof here});
    watch(listener);
    signal(SIGTERM, _exit); /* the first process of a container would not end otherwise */
    alarm(3600);
    printf("ready %d\n", ntohs(here.sin_port));
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(queue, events, 64, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                fd = accept(listener, 0, 0);
                if (fd >= MOST_CONNECTIONS)
                    close(fd);
                else if (fd >= 0)
                    watch(fd), seen[fd] = 0;
            } else if (!answer(fd, &seen[fd])) {
                close(fd);
            }
        }
    }
}

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double sent[MOST_CONNECTIONS + 8]; /* when the request went out, by connection */

static void ask(int fd)
{
    sent[fd] = now();
    if (write(fd, REQUEST, sizeof REQUEST - 1) < 0)
        fail(1, "The server closed a connection.");
}

static void take(int fd)
{
    enum { LENGTH = sizeof REPLY - 1 };
    if (recv(fd, buffer, LENGTH, MSG_WAITALL) != LENGTH || memcmp(buffer, REPLY, LENGTH))
        fail(1, "The answer is not that of bench serve.");
}

/* Keep one request under way on each connection; print latency and throughput. */
static void load(struct sockaddr_in there, double seconds, int connections)
{
    enum { MOST = 8 * MB };
    int fds[MOST_CONNECTIONS], answers = 0;
    float *latencies = malloc(MOST * sizeof *latencies);
    if (!latencies)
        fail(1, "There is not enough memory.");
    for (int i = 0; i < connections; i++) {
        int fd = fds[i] = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (void *)&there, sizeof there) < 0)
            fail(1, "Nothing answers at port %d: %s.", ntohs(there.sin_port), strerror(errno));
        watch(fd);
        ask(fd);
        take(fd); /* warms up; and some forwarders lose connections that come all at once */
    }
    double start = now(), elapsed;
    for (int i = 0; i < connections; i++)
        ask(fds[i]);
    do {
        int count = epoll_wait(queue, events, 64, 100);
        for (int i = 0; i < count && answers < MOST; i++) {
            int fd = events[i].data.fd;
            take(fd);
            latencies[answers++] = (float)(now() - sent[fd]);
            ask(fd);
        }
        elapsed = now() - start;
    } while (elapsed < seconds && answers < MOST);
    if (!answers)
        fail(1, "The server did not answer within %g s.", seconds);
    qsort(latencies, (size_t)answers, sizeof *latencies, ascending);
    printf("latency_median,%.6g,µs,\n", latencies[answers / 2] * 1e6);
    printf("latency_p99,%.6g,µs,\n", latencies[(long)answers * 99 / 100] * 1e6);
    printf("throughput,%.6g,requests/s,\n", answers / elapsed);
}

static double number(const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (!*text || *end || !(value >= least && value <= most))
        fail(2, "%s is not a number from %g to %g.", text, least, most);
    return value;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    queue = epoll_create1(0);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGALRM, too_late);
    if (!strcmp(mode, "true") && argc == 2)
        return 0;
    if (!strcmp(mode, "rows") && argc >= 4) {
        target = argv[3];
        rows(number(argv[2], 0.001, 60), argv + 4);
    } else if (!strcmp(mode, "serve") && argc == 3) {
        serve(argv[2]);
    } else if (!strcmp(mode, "load") && (argc == 5 || argc == 6)) {
        double seconds = number(argv[4], 0.001, 60);
        alarm((unsigned)seconds + 60);
        load(address(argv[2], argv[3]), seconds, argc == 6 ? (int)number(argv[5], 1, 1000) : 1);
    } else {
        fail(2, "Say: rows SECONDS DIR [ROW...] | serve [ADDRESS:]PORT | "
                "load ADDRESS PORT SECONDS [CONNECTIONS] | true");
    }
    return 0;
}
