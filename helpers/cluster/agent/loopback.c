/* Loaded into the processes of a pod: gives it a loopback of its own.
   LAB_ADDRESS is its address, 127.N.k.i. What it binds or connects to on "every address" or on
   localhost is meant for that one, and the cluster's 10.N.x.y are 127.N.x.y on this machine. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

typedef int call(int, const struct sockaddr *, socklen_t);

static in_addr_t place(in_addr_t wanted) {
    const char *text = getenv("LAB_ADDRESS");
    in_addr_t own = text ? ntohl(inet_addr(text)) : 0, at = ntohl(wanted);
    if (own && (at == INADDR_ANY || at == INADDR_LOOPBACK)) return htonl(own);
    if (own && at >> 16 == (10 << 8 | (own >> 16 & 255))) return htonl(127u << 24 | (at & 0xffffff));
    return wanted;
}

static int moved(const char *name, int fd, const struct sockaddr *to, socklen_t size) {
    call *real = (call *)dlsym(RTLD_NEXT, name);
    if (to && to->sa_family == AF_INET && size >= sizeof(struct sockaddr_in)) {
        struct sockaddr_in v4 = *(const struct sockaddr_in *)to;
        v4.sin_addr.s_addr = place(v4.sin_addr.s_addr);
        return real(fd, (struct sockaddr *)&v4, sizeof v4);
    }
    if (to && to->sa_family == AF_INET6 && size >= sizeof(struct sockaddr_in6)) {
        struct sockaddr_in6 v6 = *(const struct sockaddr_in6 *)to;
        in_addr_t old = htonl(INADDR_LOOPBACK), new = place(old);
        int mapped = IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr), off = 0;
        if (mapped) memcpy(&old, &v6.sin6_addr.s6_addr[12], 4), new = place(old);
        if (mapped || IN6_IS_ADDR_UNSPECIFIED(&v6.sin6_addr) || IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr)) {
            setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
            inet_pton(AF_INET6, "::ffff:0.0.0.0", &v6.sin6_addr);
            memcpy(&v6.sin6_addr.s6_addr[12], &new, 4);
        }
        return real(fd, (struct sockaddr *)&v6, sizeof v6);
    }
    return real(fd, to, size);
}

int bind(int fd, const struct sockaddr *to, socklen_t size) { return moved("bind", fd, to, size); }
int connect(int fd, const struct sockaddr *to, socklen_t size) { return moved("connect", fd, to, size); }
