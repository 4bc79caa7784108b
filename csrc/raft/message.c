/* Checks of messages from outside that need no state: bounds, order, form (D10).
 *
 * What passes here can be reasoned about; what contradicts our own log is judged where the log
 * is at hand. Must not know: the member. */
#include "raft/internal.h"

static bool position_is_sound(struct raft_position position) {
    return position.term <= NUMBER_MAX && position.index <= NUMBER_MAX &&
           (position.term == 0) == (position.index == 0);
}

bool message_configuration_is_sound(const struct raft_configuration *configuration) {
    if (configuration->count == 0 || configuration->count > MEMBERS_MAX) {
        return false;
    }
    bool new_voter = false;
    bool old_voter = false;
    for (uint32_t i = 0; i < configuration->count; i++) {
        const struct raft_member *member = &configuration->members[i];
        if (member->id == 0 || member->id > NUMBER_MAX ||
            raft_configuration_find(configuration, member->id) != member) {
            return false;
        }
        new_voter = new_voter || member->voter;
        old_voter = old_voter || member->voter_before;
    }
    return new_voter && old_voter == configuration->joint;
}

static bool entry_is_sound(const struct raft_entry *entry, uint64_t term_before,
                           uint64_t term_most) {
    if (entry->term == 0 || entry->term < term_before || entry->term > term_most) {
        return false;
    }
    switch (entry->kind) {
    case RAFT_ENTRY_COMMAND:
        return true;
    case RAFT_ENTRY_NOOP:
        return entry->term > term_before; /* the first one of its term */
    case RAFT_ENTRY_CONFIGURATION:
        return entry->configuration != NULL &&
               message_configuration_is_sound(entry->configuration);
    }
    return false;
}

static bool append_is_sound(const struct raft_message *message) {
    if (message->term == 0 || !position_is_sound(message->previous) ||
        message->previous.term > message->term ||
        message->count > NUMBER_MAX - message->previous.index ||
        (message->count > 0 && message->entries == NULL)) {
        return false;
    }
    uint64_t term = message->previous.term;
    for (uint32_t i = 0; i < message->count; i++) {
        if (!entry_is_sound(&message->entries[i], term, message->term)) {
            return false;
        }
        term = message->entries[i].term;
    }
    return true;
}

static bool snapshot_is_sound(const struct raft_message *message) {
    return message->term > 0 && position_is_sound(message->last) && message->last.index > 0 &&
           message->last.index < NUMBER_MAX - LOG_INDEXES_KEPT &&
           message->last.term <= message->term;
}

bool message_is_sound(const struct raft_message *message) {
    if (message->from == 0 || message->from > NUMBER_MAX || message->term > NUMBER_MAX ||
        message->commit > NUMBER_MAX || message->round > NUMBER_MAX ||
        message->match > NUMBER_MAX) {
        return false;
    }
    switch (message->kind) {
    case RAFT_VOTE:
        /* The candidate's log is of earlier terms than the one that it campaigns in. */
        return message->term > 0 && position_is_sound(message->last) &&
               message->last.term < message->term;
    case RAFT_APPEND:
        return append_is_sound(message);
    case RAFT_APPEND_REPLY:
        return position_is_sound(message->previous) && position_is_sound(message->hint);
    case RAFT_SNAPSHOT:
        return snapshot_is_sound(message);
    case RAFT_VOTE_REPLY:
    case RAFT_SNAPSHOT_REPLY:
    case RAFT_TIMEOUT_NOW:
        return true;
    }
    return false;
}
