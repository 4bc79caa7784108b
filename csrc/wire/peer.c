/* Reading and writing of the messages between servers; see peer.h. */
#include "wire/peer.h"

#include "base/assert.h"
#include "wire/scan.h"

static const char *const TYPE_NAMES[] = {
    [PEER_HELLO] = "hello",
    [PEER_WELCOME] = "welcome",
    [PEER_REFUSED] = "refused",
    [PEER_JOIN] = "join",
    [PEER_VOTE] = "vote",
    [PEER_VOTE_REPLY] = "vote_reply",
    [PEER_APPEND] = "append",
    [PEER_APPEND_REPLY] = "append_reply",
    [PEER_TIMEOUT_NOW] = "timeout_now",
    [PEER_SNAPSHOT] = "snapshot",
    [PEER_SNAPSHOT_REPLY] = "snapshot_reply",
    [PEER_SNAPSHOT_WANT] = "snapshot_want",
    [PEER_PROPOSE] = "propose",
    [PEER_PROPOSE_AGAIN] = "propose_again",
    [PEER_READ] = "read",
    [PEER_READ_REPLY] = "read_reply",
    [PEER_TURN] = "turn",
    [PEER_TURN_REPLY] = "turn_reply",
    [PEER_ADMIN] = "admin",
    [PEER_ADMIN_REPLY] = "admin_reply",
};
#define TYPE_COUNT (sizeof(TYPE_NAMES) / sizeof(TYPE_NAMES[0]))

/* --- the members of each kind ---
 *
 * Reading and writing walk the same table, so that they cannot disagree. */
enum field {
    FIELD_PROTOCOL,
    FIELD_CLUSTER,
    FIELD_NODE,
    FIELD_INCARNATION,
    FIELD_ADDRESS,
    FIELD_TO,
    FIELD_REASON,
    FIELD_REMOVED,
    FIELD_RAFT_TERM,
    FIELD_PRE,
    FIELD_GRANTED,
    FIELD_TRANSFER,
    FIELD_LAST,
    FIELD_PREVIOUS,
    FIELD_COMMIT,
    FIELD_ROUND,
    FIELD_REJECTED,
    FIELD_MATCH,
    FIELD_HINT,
    FIELD_COUNT,
    FIELD_BYTES,
    FIELD_OFFSET,
    FIELD_TOTAL,
    FIELD_TERM,
    FIELD_BATCH,
    FIELD_SEQUENCE,
    FIELD_INDEX,
    FIELD_METHOD,
    FIELD_AGAIN,
    FIELD_CODE,
    FIELD_BODY,
    FIELD_END,
};

static const char *const FIELD_NAMES[] = {
    [FIELD_PROTOCOL] = "protocol", [FIELD_CLUSTER] = "cluster",
    [FIELD_NODE] = "node",         [FIELD_INCARNATION] = "incarnation",
    [FIELD_ADDRESS] = "addr",      [FIELD_TO] = "to",
    [FIELD_REASON] = "reason",     [FIELD_REMOVED] = "removed",
    [FIELD_RAFT_TERM] = "term",    [FIELD_PRE] = "pre",
    [FIELD_GRANTED] = "granted",   [FIELD_TRANSFER] = "transfer",
    [FIELD_LAST] = "last",         [FIELD_PREVIOUS] = "previous",
    [FIELD_COMMIT] = "commit",     [FIELD_ROUND] = "round",
    [FIELD_REJECTED] = "rejected", [FIELD_MATCH] = "match",
    [FIELD_HINT] = "hint",         [FIELD_COUNT] = "count",
    [FIELD_BYTES] = "bytes",       [FIELD_OFFSET] = "offset",
    [FIELD_TOTAL] = "total",       [FIELD_TERM] = "term",
    [FIELD_BATCH] = "batch",       [FIELD_SEQUENCE] = "sequence",
    [FIELD_INDEX] = "index",       [FIELD_METHOD] = "method",
    [FIELD_AGAIN] = "again",       [FIELD_CODE] = "code",
    [FIELD_BODY] = "body",
};

#define FIELDS_MAX 10
static const enum field KIND_FIELDS[][FIELDS_MAX] = {
    [PEER_HELLO] = {FIELD_PROTOCOL, FIELD_CLUSTER, FIELD_NODE, FIELD_INCARNATION, FIELD_ADDRESS,
                    FIELD_TO, FIELD_END},
    [PEER_WELCOME] = {FIELD_PROTOCOL, FIELD_CLUSTER, FIELD_NODE, FIELD_INCARNATION, FIELD_END},
    [PEER_REFUSED] = {FIELD_REASON, FIELD_REMOVED, FIELD_END},
    [PEER_JOIN] = {FIELD_CLUSTER, FIELD_NODE, FIELD_END},
    [PEER_VOTE] = {FIELD_RAFT_TERM, FIELD_PRE, FIELD_TRANSFER, FIELD_LAST, FIELD_END},
    [PEER_VOTE_REPLY] = {FIELD_RAFT_TERM, FIELD_PRE, FIELD_GRANTED, FIELD_END},
    [PEER_APPEND] = {FIELD_RAFT_TERM, FIELD_PREVIOUS, FIELD_COMMIT, FIELD_ROUND, FIELD_COUNT,
                     FIELD_BYTES, FIELD_END},
    [PEER_APPEND_REPLY] = {FIELD_RAFT_TERM, FIELD_MATCH, FIELD_ROUND, FIELD_REJECTED,
                           FIELD_PREVIOUS, FIELD_HINT, FIELD_END},
    [PEER_TIMEOUT_NOW] = {FIELD_RAFT_TERM, FIELD_END},
    [PEER_SNAPSHOT] = {FIELD_RAFT_TERM, FIELD_COMMIT, FIELD_LAST, FIELD_OFFSET, FIELD_TOTAL,
                       FIELD_BYTES, FIELD_END},
    [PEER_SNAPSHOT_REPLY] = {FIELD_RAFT_TERM, FIELD_MATCH, FIELD_END},
    [PEER_SNAPSHOT_WANT] = {FIELD_LAST, FIELD_OFFSET, FIELD_END},
    [PEER_PROPOSE] = {FIELD_TERM, FIELD_AGAIN, FIELD_COUNT, FIELD_BYTES, FIELD_END},
    [PEER_PROPOSE_AGAIN] = {FIELD_TERM, FIELD_SEQUENCE, FIELD_END},
    [PEER_READ] = {FIELD_TERM, FIELD_BATCH, FIELD_END},
    [PEER_READ_REPLY] = {FIELD_TERM, FIELD_BATCH, FIELD_INDEX, FIELD_END},
    [PEER_TURN] = {FIELD_TERM, FIELD_CODE, FIELD_END},
    [PEER_TURN_REPLY] = {FIELD_TERM, FIELD_END},
    [PEER_ADMIN] = {FIELD_BATCH, FIELD_METHOD, FIELD_ADDRESS, FIELD_AGAIN, FIELD_END},
    [PEER_ADMIN_REPLY] = {FIELD_BATCH, FIELD_CODE, FIELD_BODY, FIELD_END},
};

static uint64_t *number_at(struct peer_message *message, enum field field) {
    switch (field) {
    case FIELD_PROTOCOL:
        return &message->protocol;
    case FIELD_NODE:
        return &message->node;
    case FIELD_INCARNATION:
        return &message->incarnation;
    case FIELD_TO:
        return &message->to;
    case FIELD_RAFT_TERM:
        return &message->raft.term;
    case FIELD_COMMIT:
        return &message->raft.commit;
    case FIELD_ROUND:
        return &message->raft.round;
    case FIELD_MATCH:
        return &message->raft.match;
    case FIELD_COUNT:
        return &message->count;
    case FIELD_BYTES:
        return &message->bytes;
    case FIELD_OFFSET:
        return &message->offset;
    case FIELD_TOTAL:
        return &message->total;
    case FIELD_TERM:
        return &message->term;
    case FIELD_BATCH:
        return &message->batch;
    case FIELD_SEQUENCE:
        return &message->sequence;
    case FIELD_INDEX:
        return &message->index;
    case FIELD_CODE:
        return &message->code;
    default:
        return NULL;
    }
}

static bool *flag_at(struct peer_message *message, enum field field) {
    switch (field) {
    case FIELD_REMOVED:
        return &message->removed;
    case FIELD_PRE:
        return &message->raft.pre;
    case FIELD_GRANTED:
        return &message->raft.granted;
    case FIELD_TRANSFER:
        return &message->raft.transfer;
    case FIELD_REJECTED:
        return &message->raft.rejected;
    case FIELD_AGAIN:
        return &message->again;
    default:
        return NULL;
    }
}

static struct raft_position *position_at(struct peer_message *message, enum field field) {
    switch (field) {
    case FIELD_LAST:
        return &message->raft.last;
    case FIELD_PREVIOUS:
        return &message->raft.previous;
    case FIELD_HINT:
        return &message->raft.hint;
    default:
        return NULL;
    }
}

static struct span *inside_at(struct peer_message *message, enum field field) {
    switch (field) {
    case FIELD_METHOD:
        return &message->method;
    case FIELD_REASON:
        return &message->reason;
    default:
        return NULL;
    }
}

/* --- writing --- */
static void write_field(struct buffer *out, struct peer_message *message, enum field field) {
    uint64_t *number = number_at(message, field);
    bool *flag = flag_at(message, field);
    struct raft_position *position = position_at(message, field);
    struct span *inside = inside_at(message, field);
    buffer_append(out, ",\"", 2);
    buffer_append_text(out, FIELD_NAMES[field]);
    buffer_append(out, "\":", 2);
    if (number != NULL) {
        buffer_append_u64(out, *number);
    } else if (flag != NULL) {
        buffer_append_text(out, *flag ? "true" : "false");
    } else if (position != NULL) {
        buffer_append_char(out, '[');
        buffer_append_u64(out, position->term);
        buffer_append_char(out, ',');
        buffer_append_u64(out, position->index);
        buffer_append_char(out, ']');
    } else if (inside != NULL) {
        scan_append_string(out, *inside);
    } else if (field == FIELD_CLUSTER || field == FIELD_ADDRESS) {
        const char *text = field == FIELD_CLUSTER ? message->cluster_id : message->address;
        scan_append_string(out, (struct span){text, strlen(text)});
    } else {
        ASSERT(field == FIELD_BODY);
        buffer_append_span(out, message->body.size > 0 ? message->body : SPAN("null"));
    }
}

void peer_write(struct buffer *out, const struct peer_message *message) {
    struct peer_message copy = *message; /* the tables hand out writable places */
    buffer_append_text(out, "{\"type\":\"");
    buffer_append_text(out, TYPE_NAMES[message->kind]);
    buffer_append_char(out, '"');
    for (const enum field *field = KIND_FIELDS[message->kind]; *field != FIELD_END; field++) {
        write_field(out, &copy, *field);
    }
    buffer_append(out, "}\n", 2);
}

/* --- reading --- */
#define TYPE_HEAD "{\"type\":\""

bool peer_is_message(struct span line) {
    return line.size > sizeof(TYPE_HEAD) &&
           memcmp(line.data, TYPE_HEAD, sizeof(TYPE_HEAD) - 1) == 0;
}

static bool read_kind(struct span line, enum peer_kind *kind) {
    const char *name = line.data + sizeof(TYPE_HEAD) - 1;
    const char *end = memchr(name, '"', line.size - (sizeof(TYPE_HEAD) - 1));
    for (size_t i = 0; end != NULL && i < TYPE_COUNT; i++) {
        struct span known = {TYPE_NAMES[i], strlen(TYPE_NAMES[i])};
        if (span_equal(known, (struct span){name, (size_t)(end - name)})) {
            *kind = (enum peer_kind)i;
            return true;
        }
    }
    return false;
}

static bool read_position(struct span value, struct raft_position *position) {
    struct span number;
    size_t at = 0;
    return scan_kind(value) == SCAN_ARRAY && scan_next_element(value, &at, &number) &&
           scan_u64(number, NUMBER_MAX, &position->term) &&
           scan_next_element(value, &at, &number) &&
           scan_u64(number, NUMBER_MAX, &position->index) &&
           !scan_next_element(value, &at, &number);
}

static bool read_text(struct span value, char *text, size_t bytes_max) {
    if (scan_kind(value) != SCAN_STRING || value.size - 2 >= bytes_max ||
        memchr(value.data, '\\', value.size) != NULL) {
        return false;
    }
    memcpy(text, value.data + 1, value.size - 2);
    text[value.size - 2] = '\0';
    return true;
}

static bool read_field(struct span value, struct peer_message *message, enum field field) {
    uint64_t *number = number_at(message, field);
    bool *flag = flag_at(message, field);
    struct raft_position *position = position_at(message, field);
    struct span *inside = inside_at(message, field);
    if (number != NULL) {
        return scan_u64(value, NUMBER_MAX, number);
    }
    if (flag != NULL) {
        *flag = scan_kind(value) == SCAN_TRUE;
        return *flag || scan_kind(value) == SCAN_FALSE;
    }
    if (position != NULL) {
        return read_position(value, position);
    }
    if (inside != NULL) {
        *inside = (struct span){value.data + 1, value.size - 2};
        return scan_kind(value) == SCAN_STRING;
    }
    if (field == FIELD_CLUSTER) {
        return read_text(value, message->cluster_id, sizeof(message->cluster_id));
    }
    if (field == FIELD_ADDRESS) {
        return read_text(value, message->address, sizeof(message->address));
    }
    ASSERT(field == FIELD_BODY);
    message->body = value;
    return true;
}

/* Members come in the order of the table, so reading is one walk over the text. */
static bool read_fields(struct span object, struct peer_message *message) {
    struct span key;
    struct span value;
    size_t at = 0;
    if (!scan_next_member(object, &at, &key, &value)) {
        return false; /* the type itself */
    }
    for (const enum field *field = KIND_FIELDS[message->kind]; *field != FIELD_END; field++) {
        struct span name = {FIELD_NAMES[*field], strlen(FIELD_NAMES[*field])};
        if (!scan_next_member(object, &at, &key, &value) || !span_equal(key, name) ||
            !read_field(value, message, *field)) {
            return false;
        }
    }
    return true; /* members that a later protocol adds behind are ignored */
}

static void fill_in(struct peer_message *message) {
    switch (message->kind) {
    case PEER_VOTE:
        message->raft.kind = RAFT_VOTE;
        break;
    case PEER_VOTE_REPLY:
        message->raft.kind = RAFT_VOTE_REPLY;
        break;
    case PEER_APPEND:
        message->raft.kind = RAFT_APPEND;
        break;
    case PEER_APPEND_REPLY:
        message->raft.kind = RAFT_APPEND_REPLY;
        break;
    case PEER_TIMEOUT_NOW:
        message->raft.kind = RAFT_TIMEOUT_NOW;
        break;
    case PEER_SNAPSHOT:
        message->raft.kind = RAFT_SNAPSHOT;
        break;
    case PEER_SNAPSHOT_REPLY:
        message->raft.kind = RAFT_SNAPSHOT_REPLY;
        break;
    default:
        break;
    }
}

enum status peer_read(struct span line, struct peer_message *message) {
    *message = (struct peer_message){0};
    struct span object;
    struct scan_error error;
    if (!peer_is_message(line) || !read_kind(line, &message->kind) ||
        !scan_document(line, &object, &error) || !read_fields(object, message)) {
        return STATUS_INVALID;
    }
    fill_in(message);
    return STATUS_OK;
}
