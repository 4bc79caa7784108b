/* What servers say to each other: one JSON line, and for some of them raw bytes behind it.
 *
 *   hello          {"type":"hello","protocol":2,"cluster":C,"node":N,"incarnation":I,"addr":A,
 *                   "to":N}
 *   welcome        {"type":"welcome","protocol":2,"cluster":C,"node":N,"incarnation":I}
 *   refused        {"type":"refused","reason":R,"removed":B}
 *   join           {"type":"join","cluster":C,"node":N}   take this identity
 *   vote, vote_reply, append_reply, timeout_now, snapshot_reply
 *                  the messages of raft/raft.h, member by member
 *   append         ... "count":N,"bytes":B}    and then B bytes: N entry lines as in the log
 *   snapshot       ... "offset":O,"total":T,"bytes":B}    and then B bytes of the file
 *   snapshot_want  {"type":"snapshot_want","last":[T,I],"offset":O}   go on from here
 *   propose        {"type":"propose","term":T,"again":B,"count":N,"bytes":B}    and then
 *                  N lines [SEQUENCE,INPUT] or ["SESSION",SEQ,SEQUENCE,INPUT]; again: the
 *                  sender has gone back
 *   propose_again  {"type":"propose_again","term":T,"sequence":S}   not taken from S on: send
 *                  again later
 *   read           {"type":"read","term":T,"batch":B}
 *   read_reply     {"type":"read_reply","term":T,"batch":B,"index":I}
 *   turn           {"type":"turn","term":T,"code":C}   a snapshot: 0 may I take one, 1 I am at
 *                  it, 2 it is done
 *   turn_reply     {"type":"turn_reply","term":T}       yes; a no is not said
 *   admin          {"type":"admin","batch":B,"method":M,"addr":A,"again":B}
 *   admin_reply    {"type":"admin_reply","batch":B,"code":C,"body":JSON}   C without its sign
 *
 * The sender is known from the connection's hello; nothing in a message can claim another. All
 * numbers are bounded by NUMBER_MAX. A line that does not fit this page is refused whole. */
#ifndef RAFTPICO_WIRE_PEER_H
#define RAFTPICO_WIRE_PEER_H

#include "base/buffer.h"
#include "base/limits.h"
#include "raft/raft.h"
#include "wire/meta.h"

#define PEER_PROTOCOL 2
#define PEER_LINE_BYTES_MAX 65536u /* a message's own line */

enum peer_kind {
    PEER_HELLO,
    PEER_WELCOME,
    PEER_REFUSED,
    PEER_JOIN,
    PEER_VOTE,
    PEER_VOTE_REPLY,
    PEER_APPEND,
    PEER_APPEND_REPLY,
    PEER_TIMEOUT_NOW,
    PEER_SNAPSHOT,
    PEER_SNAPSHOT_REPLY,
    PEER_SNAPSHOT_WANT,
    PEER_PROPOSE,
    PEER_PROPOSE_AGAIN,
    PEER_READ,
    PEER_READ_REPLY,
    PEER_TURN,
    PEER_TURN_REPLY,
    PEER_ADMIN,
    PEER_ADMIN_REPLY,
};

/* One message, flat: each kind uses the members that its line above shows. */
struct peer_message {
    enum peer_kind kind;
    struct raft_message raft; /* VOTE .. SNAPSHOT_REPLY; `entries` is not filled in here */
    uint64_t bytes;           /* that follow the line */
    uint64_t count;           /* lines among them */
    uint64_t protocol;
    char cluster_id[CLUSTER_ID_BYTES];
    uint64_t node;
    uint64_t incarnation;
    uint64_t to;
    char address[ADDRESS_BYTES_MAX];
    bool removed;
    bool again;
    uint64_t term;
    uint64_t batch;
    uint64_t sequence;
    uint64_t index;
    uint64_t offset;
    uint64_t total;
    uint64_t code;
    struct span body;   /* raw JSON, borrowed from the line; empty when absent */
    struct span method; /* the string's inside, borrowed */
    struct span reason; /* the string's inside, borrowed */
};

/* Whether a line is meant for servers: the first member is "type". Says nothing of its
 * validity. */
bool peer_is_message(struct span line);

/* Read a line without its LF. STATUS_INVALID: not of this page. */
enum status peer_read(struct span line, struct peer_message *message) MUST_USE;

/* Append the line, LF included. What follows it (`bytes`) is the caller's to append. */
void peer_write(struct buffer *out, const struct peer_message *message);

#endif
