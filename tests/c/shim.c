/* Preloaded into a server that is tested: what the system does to it that a test cannot bring
 * about from outside.
 *
 *   RAFTPICO_SHIM_ROUTES   a file of lines "PORT OTHER": connections to PORT go to OTHER
 *   RAFTPICO_SHIM_NO_FORK  a file: while it is there, fork() fails for want of memory */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static unsigned route(unsigned port) {
    const char *path = getenv("RAFTPICO_SHIM_ROUTES");
    FILE *file = path != NULL ? fopen(path, "re") : NULL;
    unsigned from, to;
    unsigned found = port;
    while (file != NULL && fscanf(file, "%u %u", &from, &to) == 2) {
        found = from == port ? to : found;
    }
    if (file != NULL) {
        fclose(file);
    }
    return found;
}

int connect(int fd, const struct sockaddr *address, socklen_t size) {
    int (*real)(int, const struct sockaddr *, socklen_t);
    *(void **)&real = dlsym(RTLD_NEXT, "connect");
    if (address->sa_family != AF_INET) {
        return real(fd, address, size);
    }
    struct sockaddr_in other;
    memcpy(&other, address, sizeof(other));
    other.sin_port = htons((in_port_t)route(ntohs(other.sin_port)));
    return real(fd, (const struct sockaddr *)&other, sizeof(other));
}

pid_t fork(void) {
    pid_t (*real)(void);
    *(void **)&real = dlsym(RTLD_NEXT, "fork");
    const char *path = getenv("RAFTPICO_SHIM_NO_FORK");
    if (path != NULL && access(path, F_OK) == 0) {
        errno = ENOMEM;
        return -1;
    }
    return real();
}
