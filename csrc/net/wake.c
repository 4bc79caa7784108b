/* Waking the loop from any thread; see internal.h.
 *
 * Not by uv_async_t: before libuv 1.45 the loop that it wakes spins until the thread that woke
 * it has run on, and on a busy machine that thread is just the one that the loop displaced. */
#include <errno.h>
#include <unistd.h>

#include "base/assert.h"
#include "net/internal.h"

#ifdef __linux__
#include <sys/eventfd.h>

static int open_pair(int ends[2]) {
    ends[0] = ends[1] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return ends[0] < 0 ? uv_translate_sys_error(errno) : 0;
}
#else
static int open_pair(int ends[2]) {
    return uv_pipe(ends, UV_NONBLOCK_PIPE, UV_NONBLOCK_PIPE);
}
#endif

static void close_pair(const int ends[2]) {
    close(ends[0]);
    if (ends[1] != ends[0]) {
        close(ends[1]);
    }
}

/* First nothing is pending any more, then the host looks: who comes later wakes us again. */
static void on_readable(uv_poll_t *poll, int status, int events) {
    (void)status;
    (void)events;
    struct net *net = poll->data;
    uint64_t count;
    ssize_t got = read(net->wake.ends[0], &count, sizeof(count));
    (void)got; /* as much as there was, or nothing */
    atomic_store(&net->wake.pending, false);
    if (!net->stopping) {
        net->events->woken(net->host);
    }
}

int wake_open(struct net *net) {
    struct wake *wake = &net->wake;
    atomic_init(&wake->pending, false);
    int result = open_pair(wake->ends);
    if (result != 0) {
        return result;
    }
    result = uv_poll_init(&net->loop, &wake->poll, wake->ends[0]);
    if (result != 0) {
        close_pair(wake->ends);
        return result;
    }
    wake->poll.data = net;
    result = uv_poll_start(&wake->poll, UV_READABLE, on_readable);
    ASSERT(result == 0); /* fails for a handle that is closing, or for nothing to wait for */
    return 0;
}

void wake_stop(struct net *net) {
    uv_close((uv_handle_t *)&net->wake.poll, NULL);
}

void wake_close(struct net *net) {
    close_pair(net->wake.ends);
}

void net_wake(struct net *net) {
    if (!atomic_exchange(&net->wake.pending, true)) {
        const uint64_t one = 1;
        ssize_t sent = write(net->wake.ends[1], &one, sizeof(one));
        (void)sent; /* fails only where so many are unread that the loop is awake anyway */
    }
}
