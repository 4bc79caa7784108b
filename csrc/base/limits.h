/* Every limit of the engine, in one place, with its unit in its name and the relations between
 * them asserted. Nothing elsewhere is bounded by a bare number.
 *
 * A test build may shrink a limit by defining it on the command line before this file. */
#ifndef RAFTPICO_BASE_LIMITS_H
#define RAFTPICO_BASE_LIMITS_H

#include "base/assert.h"

/* --- the cluster --- */
#ifndef MEMBERS_MAX
#define MEMBERS_MAX 16 /* voters and learners in one configuration */
#endif
#define ADDRESS_BYTES_MAX 280         /* "host:port": a DNS name is at most 253 */
#define NUMBER_MAX ((1ULL << 53) - 1) /* terms and indexes from outside: exact in any JSON */

/* --- a client's line --- */
#ifndef LINE_BYTES_MAX
#define LINE_BYTES_MAX (1024u * 1024u) /* one request line, its LF not counted */
#endif
#define JSON_DEPTH_MAX 128u      /* nesting of [ and { */
#define BATCH_REQUESTS_MAX 1000u /* requests in one JSON-RPC batch */
#define ID_BYTES_MAX 4096u       /* the raw text of an id */

/* --- an entry --- */
#define ENTRY_OVERHEAD_BYTES_MAX 1536u /* what the log adds around a command's input */
#define ENTRY_BYTES_MAX (LINE_BYTES_MAX + ENTRY_OVERHEAD_BYTES_MAX)

/* --- clients' sessions ---
 *
 * What a session does is part of the replicated state: every member must have the same numbers
 * here, so a change of one counts PEER_PROTOCOL up. */
#define SESSION_BYTES_MAX 128u                         /* a session's name, unescaped, UTF-8 */
#define SESSION_TEXT_BYTES_MAX (6 * SESSION_BYTES_MAX) /* the same as JSON text */
#ifndef CLIENT_SESSIONS_MAX
#define CLIENT_SESSIONS_MAX 16384u /* open at once */
#endif
#define SESSION_IDLE_MS 3600000ull /* without a new command for longer: it expires */
#define SESSION_KEEP_MS 120000ull  /* a younger one does not make way for a new one */
#define SESSION_ANSWER_BYTES_MAX (64u * 1024) /* a larger answer is not kept for repeats */
#ifndef SESSION_ANSWERS_BYTES_MAX
#define SESSION_ANSWERS_BYTES_MAX (32ull * 1024 * 1024) /* of all: then the oldest go */
#endif

/* --- a member's queues --- */
#ifndef PENDING_COMMANDS_MAX
#define PENDING_COMMANDS_MAX 131072u /* commands of one server that wait for their answer */
#endif
#define PENDING_BYTES_MAX (256ull * 1024 * 1024) /* their text, together */
#define PENDING_READS_MAX 131072u                /* queries of all kinds that wait */
#define PENDING_READ_BYTES_MAX (64ull * 1024 * 1024)
#define MACHINE_STATES_MAX 2u  /* GetServerState {"user":true} under way */
#define ADMIN_REQUESTS_MAX 64u /* AddServer, RemoveServer, TakeSnapshot that wait */
#define ANSWERS_IN_FLIGHT_BYTES_MAX (64ull * 1024 * 1024) /* expected, of one connection */
#ifndef IN_FLIGHT_PER_CLIENT_MAX
/* Requests of one connection that wait: then it is not read. */
#define IN_FLIGHT_PER_CLIENT_MAX 4096u
#endif
#define IN_FLIGHT_MAX 4096u /* of all connections: then one that has some is not read */
#define HELD_LOOKED_AT 16u  /* clients whose lines wait: so many go on in a turn in any case */
/* Of clients' lines and what they are answered at once, in a turn: the rest is for the next. */
#define TURN_BYTES_MAX (512u * 1024)
#define TURN_SHARE_BYTES_LEAST (8u * 1024)      /* of one client whose lines wait */
#define EXPECTED_BYTES_MAX (1ull * 1024 * 1024) /* answers of all: as IN_FLIGHT_MAX */
#define ANSWER_BYTES_GUESS 4096u                /* expected before there were any answers */
#define IN_FLIGHT_SHARED_MAX 256u /* the same while other connections wait as well */
#define SHARED_MS 1000u           /* which is taken to go on for this long */
#define LIGHT_IN_FLIGHT 4u        /* of one who waits for each answer, or nearly, */
#define LIGHT_SINGLES 8u          /* ... as he has done so often in a row, */
#define LIGHT_MS 50u              /* ... taken to be there for so long after each answer */
/* Of all, while there is such a one: then others go on one by one, since he waits for them. */
#define BESIDE_LIGHT_IN_FLIGHT_MAX 20u
#define BESIDE_LIGHT_EXPECTED_BYTES_MAX (64u * 1024)
#define HELD_LOOKED_AT_BESIDE_LIGHT 2u               /* as HELD_LOOKED_AT */
#define CLIENTS_OUT_BYTES_MAX (256ull * 1024 * 1024) /* unread answers of all: pressure */
#define CLIENT_OUT_PRESSED_BYTES_MAX (64u * 1024)    /* ... of one, under pressure */
#ifndef CLIENTS_IN_BYTES_MAX
#define CLIENTS_IN_BYTES_MAX (128ull * 1024 * 1024) /* unfinished or waiting lines of all: */
#endif
#define CLIENT_IN_PRESSED_BYTES_MAX                                                            \
    4096u                           /* ... longer ones are given up, and so much is read */
#define UNFINISHED_PRESSED_MS 1000u /* ... first those that began so long ago */
/* Held for clients once, and three quarters of it no more: memory is given back. */
#define GIVE_BACK_BYTES_LEAST (32ull * 1024 * 1024)
#define CONN_IN_KEEP_BYTES 4096u      /* of an emptied input buffer: more is given back */
#define CLIENT_STALL_MS 60000u        /* a full one that takes nothing for so long is closed */
#define CLIENT_STALL_PRESSED_MS 1000u /* the same under pressure */
#ifndef CLIENT_OUT_BYTES_MAX
#define CLIENT_OUT_BYTES_MAX (4u * 1024 * 1024) /* unread answers: then it is not read */
#endif
#define BAD_LINES_MAX 1000u /* in a row on one connection: then it is closed */
#ifndef PEER_OUT_BYTES_MAX
#define PEER_OUT_BYTES_MAX (8u * 1024 * 1024) /* unsent to a peer: then only heartbeats */
#endif
#ifndef APPEND_BYTES_MAX
#define APPEND_BYTES_MAX (1024u * 1024) /* entry lines in one message (at least one line) */
#endif
#ifndef PROPOSE_BYTES_MAX
#define PROPOSE_BYTES_MAX (1024u * 1024) /* forwarded commands in one message */
#endif
#define PEER_PAYLOAD_BYTES_MAX (8u * 1024 * 1024) /* bytes that may follow a message's line */
#ifndef SNAPSHOT_CHUNK_BYTES
#define SNAPSHOT_CHUNK_BYTES (256u * 1024)
#endif
#ifndef ENTRY_CACHE_BYTES_MAX
#define ENTRY_CACHE_BYTES_MAX (64ull * 1024 * 1024) /* recent lines in memory, when durable */
#endif
#define UNCOMMITTED_BYTES_MAX (256ull * 1024 * 1024)   /* then proposals are refused */
#define PEER_IN_FLIGHT_BYTES_MAX (32ull * 1024 * 1024) /* sent to one, not acknowledged yet */
#define UNWRITTEN_BYTES_MAX (512ull * 1024 * 1024) /* of entries that wait for a slow disk */
#ifndef ENTRY_BLOCK_BYTES
#define ENTRY_BLOCK_BYTES (256u * 1024)
#endif
#ifndef APPLY_BATCH_ITEMS_MAX
#define APPLY_BATCH_ITEMS_MAX 8192u /* handed to the machine at once */
#endif
#define APPLY_BATCH_BYTES_MAX (4u * 1024 * 1024)
#define APPLY_OUTPUT_BYTES_MAX (64ull * 1024 * 1024) /* of a batch: then the rest runs later */
#define APPLY_GATHER_MS 2u         /* a batch for which nobody waits is handed over by then, */
#define APPLY_GATHER_ITEMS_MAX 64u /* ... or when it holds so many */
#define APPLY_BATCHES_MAX 2u       /* with the apply thread: one running, one waiting */
#define DISK_BATCH_BYTES_MAX (16u * 1024 * 1024) /* written and synced at once */
#ifndef COMPACT_KEEP_ENTRIES
/* Kept behind a snapshot for followers that lag a little. */
#define COMPACT_KEEP_ENTRIES 10000u
#endif
#define SNAPSHOT_LOG_BYTES_DEFAULT (64ull * 1024 * 1024)

/* --- a member's deadlines, milliseconds --- */
#define REQUEST_TIMEOUT_MS_DEFAULT 60000u /* every request is answered within this */
#define NO_LEADER_TIMEOUT_MS 5000u        /* without a leader for this long: 108 */
#define DIAL_TIMEOUT_MS 3000u      /* a server that is to be added must answer within this */
#define CATCH_UP_TIMEOUT_MS 10000u /* and make progress at least this often until it votes */
#define REDIAL_MS_LEAST 20u
#define REDIAL_MS_MOST 1000u
#define STOP_TIMEOUT_MS 3000u /* a graceful stop takes at most this long */
#define SNAPSHOT_RETRY_MS 1000u
#define DISK_FULL_MS 1000u      /* a disk that stays full longer: a leader makes way */
#define FAILURE_LINGER_MS 2000u /* after its disk has failed: says why, then ends */
#define DISK_STALL_MS 5000u     /* a write that takes longer: a leader makes way */

/* --- connections and threads --- */
#define LOOP_LENT_MS_MAX 2u        /* who is at work for so long with the loop loses it */
#define LOOP_LEND_AGAIN_MS 20u     /* ... and nobody is lent it before so long after that */
#define BATCH_ALONG_ITEMS_MAX 64u  /* a batch with which the loop goes along */
#define JOB_ALONG_ENTRIES_MAX 2u   /* a write with which it does, */
#define JOB_ALONG_BYTES_MAX 16384u /* ... of so many bytes at most */
#ifndef CLIENT_CONNECTIONS_MAX
/* Accepted; fewer where the process may open fewer files. */
#define CLIENT_CONNECTIONS_MAX 65536u
#endif
#define DESCRIPTORS_RESERVED 96u  /* of those kept back for files, dialling and extra ones */
#define EXTRA_CONNECTIONS_MAX 32u /* past the limit, for peers alone */
#define HELLO_TIMEOUT_MS 1000u    /* in which such a one must say hello */
#define CROWDED_NOTICE_MS 60000u  /* that clients are turned away is said this often at most */
#define LISTEN_BACKLOG 1024       /* connections that the system holds for us */
#define READ_BYTES_MAX (256u * 1024)     /* read at once, into one place for all connections */
#define CONN_OUT_KEEP_BYTES (64u * 1024) /* of an emptied output buffer: more is given back */
#define CONNECT_TIMEOUT_MS 3000u         /* name look-up not counted */
#define FINISH_TIMEOUT_MS 2000u     /* a closing connection has this long to take the rest */
#define FINISH_STOP_TIMEOUT_MS 500u /* the same when the server stops */
#define FINISH_BYTES_MAX (16ull * 1024 * 1024) /* read and dropped meanwhile */
/* Unsent to all closing connections: past that one more is broken at once. */
#define FINISH_UNSENT_BYTES_MAX (64u * 1024 * 1024)
#define KEEPALIVE_SECONDS 60u
#ifndef SNAPSHOT_IO_BYTES
#define SNAPSHOT_IO_BYTES (1024u * 1024) /* of a snapshot, read at once */
#endif
/* Of our own snapshot, read back and checked between two writes of the log. */
#ifndef SNAPSHOT_CHECK_BYTES
#define SNAPSHOT_CHECK_BYTES (512u * 1024)
#endif

STATIC_ASSERT(APPEND_BYTES_MAX + ENTRY_BYTES_MAX <= PEER_PAYLOAD_BYTES_MAX, "a message fits");
STATIC_ASSERT(PROPOSE_BYTES_MAX + ENTRY_BYTES_MAX <= PEER_PAYLOAD_BYTES_MAX, "a message fits");
STATIC_ASSERT(SNAPSHOT_CHUNK_BYTES <= PEER_PAYLOAD_BYTES_MAX, "a chunk fits");
STATIC_ASSERT(EXTRA_CONNECTIONS_MAX >= 2 * (MEMBERS_MAX - 1), "every peer, old and new");
STATIC_ASSERT(DESCRIPTORS_RESERVED >= EXTRA_CONNECTIONS_MAX + 3 * MEMBERS_MAX, "and files");

/* --- the core --- */
#ifndef RAFT_UNCOMMITTED_ENTRIES_MAX
#define RAFT_UNCOMMITTED_ENTRIES_MAX (1ull << 20) /* then proposals are refused */
#endif
#ifndef RAFT_IN_FLIGHT_ENTRIES_MAX
#define RAFT_IN_FLIGHT_ENTRIES_MAX 65536ull /* sent to one peer and not acknowledged yet */
#endif
#define RAFT_PEERS_MAX (2 * MEMBERS_MAX) /* with removed ones that do not know it yet */
#define RAFT_HEARTBEAT_MS_MOST 100u
#define RAFT_HEARTBEATS_PER_TIMEOUT 3u
#define COMMIT_NOTICE_MS 2u /* a member that waits for no entry learns of its commit by then */
#define RAFT_OFFERS_PER_HEARTBEAT 4u /* how often a peer with a full queue is offered again */
/* By so many terms a message may be ahead of us: months of elections that fail, one after the
 * other. What is further ahead would have us use up all terms that there are. */
#define RAFT_TERMS_AHEAD_MAX (1ull << 24)
#define RAFT_DEPARTING_TIMEOUTS 10u /* a removed peer is kept informed for at most so long */

/* --- default election timing, milliseconds (CreateCluster) --- */
#define MIN_ELECTION_TIMEOUT_MS_DEFAULT 300u
#define MAX_ELECTION_TIMEOUT_MS_DEFAULT 2000u
#define ELECTION_TIMEOUT_MS_LEAST 10u
#define ELECTION_TIMEOUT_MS_MOST 600000u

STATIC_ASSERT(SESSION_TEXT_BYTES_MAX + 512 <= ENTRY_OVERHEAD_BYTES_MAX, "a session fits");
STATIC_ASSERT(SESSION_KEEP_MS >= 2 * REQUEST_TIMEOUT_MS_DEFAULT, "a retry finds its session");
STATIC_ASSERT(SESSION_KEEP_MS < SESSION_IDLE_MS, "an expired session makes way");
STATIC_ASSERT(SESSION_ANSWER_BYTES_MAX <= SESSION_ANSWERS_BYTES_MAX, "one answer fits");
STATIC_ASSERT(LOOP_LENT_MS_MAX < ELECTION_TIMEOUT_MS_LEAST / RAFT_HEARTBEATS_PER_TIMEOUT,
              "the loop is back in time for a heartbeat");
STATIC_ASSERT(MEMBERS_MAX >= 7, "clusters of seven are measured and promised");
STATIC_ASSERT(JSON_DEPTH_MAX < 900, "Python's own reader stops near a thousand");
STATIC_ASSERT(MIN_ELECTION_TIMEOUT_MS_DEFAULT < MAX_ELECTION_TIMEOUT_MS_DEFAULT, "a range");

#endif
