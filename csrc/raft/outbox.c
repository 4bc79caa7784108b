/* Merging of messages; see outbox.h. */
#include "raft/outbox.h"

void outbox_clear(struct outbox *outbox) {
    outbox->count = 0;
}

/* A vote that was given must not be hidden by a later answer about a mere pre-vote (9.6). */
static bool must_stay(const struct raft_message *waiting, const struct raft_message *message) {
    return waiting->kind == RAFT_VOTE_REPLY && waiting->granted && !waiting->pre &&
           message->pre;
}

void outbox_add(struct outbox *outbox, const struct raft_message *message) {
    for (uint32_t i = 0; i < outbox->count; i++) {
        struct raft_message *waiting = &outbox->messages[i];
        if (waiting->to == message->to && waiting->kind == message->kind) {
            if (!must_stay(waiting, message)) {
                *waiting = *message;
            }
            return;
        }
    }
    if (outbox->count < RAFT_MESSAGES_MAX) {
        outbox->messages[outbox->count++] = *message;
    }
}
