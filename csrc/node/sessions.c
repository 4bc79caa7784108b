/* Clients' sessions; see sessions.h. */
#include "node/sessions.h"

#include "base/assert.h"
#include "base/limits.h"
#include "base/memory.h"
#include "wire/cursor.h"

#ifndef BUCKETS
#define BUCKETS 32768u /* a power of two */
#endif
#define EVENTS_MIN 64u
#define NOTHING_DUE UINT64_MAX
#define NOTHING_SAID "{}" /* stands for an error's empty text */

STATIC_ASSERT(CLIENT_SESSIONS_MAX <= 2 * BUCKETS, "short chains");

struct session_link {
    struct session *older;
    struct session *newer;
};

struct session {
    struct session *next; /* in its bucket */
    struct session_link links[SESSION_ORDERS];
    uint64_t hash;
    /* as offered */
    uint64_t seq;
    uint64_t time_ms;
    /* as answered; done_index 0: not yet */
    uint64_t done_seq;
    uint64_t done_time_ms;
    uint64_t done_index;
    int32_t code;
    bool kept;
    char *answer; /* NULL: none, or empty */
    uint32_t answer_size;
    uint32_t name_size;
    char name[]; /* JSON text */
};

enum event_kind {
    EVENT_STORE,  /* the machine's answer belongs to this session */
    EVENT_REPEAT, /* somebody waits for the session's answer */
    EVENT_CLOSE,  /* the session is gone */
};

struct session_event {
    enum event_kind kind;
    uint64_t index;
    struct session *session;
    uint64_t seq;     /* STORE */
    uint64_t time_ms; /* STORE */
    uint64_t waiter;  /* REPEAT */
};

void sessions_init(struct sessions *sessions, uint64_t seed) {
    *sessions = (struct sessions){.hash_seed = seed, .due_index = NOTHING_DUE};
}

/* --- orders --- */
static void list_remove(struct sessions *sessions, struct session *session,
                        enum session_order order) {
    struct session_list *list = &sessions->lists[order];
    struct session_link *link = &session->links[order];
    if (link->older != NULL) {
        link->older->links[order].newer = link->newer;
    } else {
        list->oldest = link->newer;
    }
    if (link->newer != NULL) {
        link->newer->links[order].older = link->older;
    } else {
        list->newest = link->older;
    }
    *link = (struct session_link){NULL, NULL};
}

static void list_add(struct sessions *sessions, struct session *session,
                     enum session_order order) {
    struct session_list *list = &sessions->lists[order];
    session->links[order] = (struct session_link){.older = list->newest};
    if (list->newest != NULL) {
        list->newest->links[order].newer = session;
    } else {
        list->oldest = session;
    }
    list->newest = session;
}

/* --- by name --- */
/* Seeded, so that a client cannot choose names that all land in one bucket. */
static uint64_t hash_of(const struct sessions *sessions, struct span name) {
    uint64_t hash = sessions->hash_seed ^ name.size;
    for (size_t i = 0; i < name.size; i++) {
        hash = (hash ^ (unsigned char)name.data[i]) * 0x9e3779b97f4a7c15ull;
        hash ^= hash >> 29;
    }
    return hash;
}

static struct session *find(const struct sessions *sessions, struct span name) {
    if (sessions->buckets == NULL) {
        return NULL;
    }
    uint64_t hash = hash_of(sessions, name);
    struct session *session = sessions->buckets[hash & (BUCKETS - 1)];
    while (session != NULL &&
           !(session->hash == hash &&
             span_equal(name, (struct span){session->name, session->name_size}))) {
        session = session->next;
    }
    return session;
}

static struct session *add(struct sessions *sessions, struct span name) {
    if (sessions->buckets == NULL) {
        sessions->buckets = memory_must_alloc_zero(BUCKETS * sizeof(sessions->buckets[0]));
    }
    struct session *session = memory_must_alloc_zero(sizeof(*session) + name.size);
    memcpy(session->name, name.data, name.size);
    session->name_size = (uint32_t)name.size;
    session->hash = hash_of(sessions, name);
    struct session **bucket = &sessions->buckets[session->hash & (BUCKETS - 1)];
    session->next = *bucket;
    *bucket = session;
    list_add(sessions, session, SESSION_BY_OFFER);
    sessions->count++;
    return session;
}

/* Nobody finds it any more; its answer stays until the answers have come as far. */
static void hide(struct sessions *sessions, struct session *session) {
    struct session **at = &sessions->buckets[session->hash & (BUCKETS - 1)];
    while (*at != session) {
        at = &(*at)->next;
    }
    *at = session->next;
    list_remove(sessions, session, SESSION_BY_OFFER);
    sessions->count--;
}

/* --- the queue between the two moments --- */
static struct session_event *event_at(const struct sessions *sessions, uint64_t number) {
    return &sessions->events[number & (sessions->event_capacity - 1)];
}

static void grow_events(struct sessions *sessions) {
    struct sessions grown = *sessions;
    grown.event_capacity =
        sessions->event_capacity == 0 ? EVENTS_MIN : sessions->event_capacity * 2;
    grown.events = memory_must_alloc_zero(grown.event_capacity * sizeof(grown.events[0]));
    for (uint64_t number = sessions->event_first; number < sessions->event_next; number++) {
        *event_at(&grown, number) = *event_at(sessions, number);
    }
    memory_free(sessions->events);
    *sessions = grown;
}

static void push_event(struct sessions *sessions, struct session_event event) {
    if (sessions->event_next - sessions->event_first == sessions->event_capacity) {
        grow_events(sessions);
    }
    if (sessions->event_first == sessions->event_next) {
        sessions->due_index = event.index;
    }
    *event_at(sessions, sessions->event_next++) = event;
}

static void pop_event(struct sessions *sessions) {
    sessions->event_first++;
    sessions->due_index = sessions->event_first == sessions->event_next
                              ? NOTHING_DUE
                              : event_at(sessions, sessions->event_first)->index;
}

/* --- offered --- */
static void close_session(struct sessions *sessions, struct session *session, uint64_t index) {
    hide(sessions, session);
    push_event(sessions,
               (struct session_event){.kind = EVENT_CLOSE, .index = index, .session = session});
}

static void close_expired(struct sessions *sessions, const struct entry *entry) {
    struct session *oldest = sessions->lists[SESSION_BY_OFFER].oldest;
    while (oldest != NULL && oldest->time_ms + SESSION_IDLE_MS < entry->time_ms) {
        close_session(sessions, oldest, entry->index);
        oldest = sessions->lists[SESSION_BY_OFFER].oldest;
    }
}

static bool make_room(struct sessions *sessions, const struct entry *entry) {
    struct session *oldest = sessions->lists[SESSION_BY_OFFER].oldest;
    if (sessions->count < CLIENT_SESSIONS_MAX) {
        return true;
    }
    if (oldest->time_ms + SESSION_KEEP_MS > entry->time_ms) {
        return false;
    }
    close_session(sessions, oldest, entry->index);
    return true;
}

static void move_on(struct sessions *sessions, struct session *session,
                    const struct entry *entry) {
    session->seq = entry->session_seq;
    session->time_ms = entry->time_ms;
    list_remove(sessions, session, SESSION_BY_OFFER);
    list_add(sessions, session, SESSION_BY_OFFER);
    push_event(sessions, (struct session_event){.kind = EVENT_STORE,
                                                .index = entry->index,
                                                .session = session,
                                                .seq = entry->session_seq,
                                                .time_ms = entry->time_ms});
}

enum session_verdict sessions_offer(struct sessions *sessions, const struct entry *entry,
                                    uint64_t waiter, uint64_t *last_seq) {
    ASSERT(entry->session.size > 0 && entry->session_seq > 0);
    close_expired(sessions, entry);
    struct session *session = find(sessions, entry->session);
    if (session == NULL) {
        if (entry->session_seq != 1) {
            return SESSION_EXPIRED;
        }
        if (!make_room(sessions, entry)) {
            return SESSION_FULL;
        }
        session = add(sessions, entry->session);
    } else if (entry->session_seq < session->seq) {
        *last_seq = session->seq;
        return SESSION_STALE;
    } else if (entry->session_seq == session->seq) {
        if (waiter != 0) {
            push_event(sessions, (struct session_event){.kind = EVENT_REPEAT,
                                                        .index = entry->index,
                                                        .session = session,
                                                        .waiter = waiter});
        }
        return SESSION_REPEAT;
    }
    move_on(sessions, session, entry);
    return SESSION_APPLY;
}

/* --- answered --- */
static void drop_answer(struct sessions *sessions, struct session *session) {
    sessions->answers_bytes -= session->answer_size;
    memory_free(session->answer);
    session->answer = NULL;
    session->answer_size = 0;
    session->kept = false;
}

/* Out of the order of answers, and its answer with it. */
static void forget_answer(struct sessions *sessions, struct session *session) {
    if (session->done_index == 0) {
        return;
    }
    if (sessions->kept_from == session) {
        sessions->kept_from = session->links[SESSION_BY_ANSWER].newer;
    }
    list_remove(sessions, session, SESSION_BY_ANSWER);
    drop_answer(sessions, session);
}

static void keep_answer(struct sessions *sessions, struct session *session, struct span text) {
    session->kept = text.size <= SESSION_ANSWER_BYTES_MAX;
    if (session->kept && text.size > 0) {
        session->answer = memory_must_grow(NULL, text.size);
        memcpy(session->answer, text.data, text.size);
        session->answer_size = (uint32_t)text.size;
        sessions->answers_bytes += text.size;
    }
    list_add(sessions, session, SESSION_BY_ANSWER);
    if (sessions->kept_from == NULL) {
        sessions->kept_from = session;
    }
    while (sessions->answers_bytes > SESSION_ANSWERS_BYTES_MAX) {
        struct session *oldest = sessions->kept_from;
        ASSERT(oldest != NULL); /* the bytes are somebody's */
        sessions->kept_from = oldest->links[SESSION_BY_ANSWER].newer;
        drop_answer(sessions, oldest);
    }
}

bool sessions_next(struct sessions *sessions, uint64_t index, struct session_answer *answer) {
    while (sessions_due(sessions, index)) {
        struct session_event event = *event_at(sessions, sessions->event_first);
        struct session *session = event.session;
        switch (event.kind) {
        case EVENT_STORE:
            ASSERT(event.index == index); /* an answer is never skipped */
            return false;
        case EVENT_REPEAT:
            ASSERT(session->done_index > 0 && session->done_index < event.index);
            pop_event(sessions);
            *answer = (struct session_answer){event.waiter,
                                              session->done_index,
                                              session->code,
                                              session->kept,
                                              {session->answer, session->answer_size}};
            return true;
        case EVENT_CLOSE:
            pop_event(sessions);
            forget_answer(sessions, session);
            memory_free(session);
            break;
        }
    }
    return false;
}

void sessions_store(struct sessions *sessions, uint64_t index, int32_t code, struct span text) {
    if (!sessions_due(sessions, index)) {
        return;
    }
    struct session_event event = *event_at(sessions, sessions->event_first);
    ASSERT(event.kind == EVENT_STORE && event.index == index);
    pop_event(sessions);
    struct session *session = event.session;
    forget_answer(sessions, session);
    session->done_seq = event.seq;
    session->done_time_ms = event.time_ms;
    session->done_index = event.index;
    session->code = code;
    keep_answer(sessions, session, text);
}

/* --- all of them --- */
void sessions_clear(struct sessions *sessions) {
    while (sessions->event_first < sessions->event_next) {
        struct session_event event = *event_at(sessions, sessions->event_first);
        pop_event(sessions);
        if (event.kind == EVENT_CLOSE) {
            forget_answer(sessions, event.session);
            memory_free(event.session);
        }
    }
    struct session *session = sessions->lists[SESSION_BY_OFFER].oldest;
    while (session != NULL) {
        struct session *newer = session->links[SESSION_BY_OFFER].newer;
        memory_free(session->answer);
        memory_free(session);
        session = newer;
    }
    memory_free(sessions->buckets);
    memory_free(sessions->events);
    sessions_init(sessions, sessions->hash_seed);
}

static void write_one(const struct session *session, struct buffer *lines) {
    buffer_append_text(lines, "[\"");
    buffer_append(lines, session->name, session->name_size);
    buffer_append_text(lines, "\",");
    buffer_append_u64(lines, session->done_seq);
    buffer_append_char(lines, ',');
    buffer_append_u64(lines, session->done_time_ms);
    buffer_append_char(lines, ',');
    buffer_append_u64(lines, session->done_index);
    buffer_append_char(lines, ',');
    buffer_append_u64(lines, (uint64_t)session->code);
    if (session->kept) {
        buffer_append_char(lines, ',');
        if (session->answer_size > 0) {
            buffer_append(lines, session->answer, session->answer_size);
        } else {
            buffer_append_text(lines, NOTHING_SAID);
        }
    }
    buffer_append_text(lines, "]\n");
}

void sessions_write(const struct sessions *sessions, struct buffer *lines) {
    const struct session *session = sessions->lists[SESSION_BY_ANSWER].oldest;
    for (; session != NULL; session = session->links[SESSION_BY_ANSWER].newer) {
        write_one(session, lines);
    }
}

static bool read_one(struct sessions *sessions, struct span line) {
    struct cursor cursor = cursor_over(line);
    struct span name;
    uint64_t seq, time_ms, index, code;
    const struct session *newest = sessions->lists[SESSION_BY_ANSWER].newest;
    if (!cursor_text(&cursor, SPAN("[\"")) || !cursor_string(&cursor, &name) ||
        name.size == 0 || name.size > SESSION_TEXT_BYTES_MAX ||
        !cursor_member(&cursor, SPAN(","), &seq) || seq == 0 ||
        !cursor_member(&cursor, SPAN(","), &time_ms) ||
        !cursor_member(&cursor, SPAN(","), &index) ||
        index <= (newest == NULL ? 0 : newest->done_index) ||
        !cursor_member(&cursor, SPAN(","), &code) || code > INT16_MAX ||
        sessions->count == CLIENT_SESSIONS_MAX || find(sessions, name) != NULL) {
        return false;
    }
    struct span rest = cursor_rest(&cursor);
    if (rest.size == 0 || rest.data[rest.size - 1] != ']' ||
        (rest.size > 1 && (rest.size < 3 || rest.data[0] != ','))) {
        return false;
    }
    struct session *session = add(sessions, name);
    session->seq = session->done_seq = seq;
    session->time_ms = session->done_time_ms = time_ms;
    session->done_index = index;
    session->code = (int32_t)code;
    bool kept = rest.size > 1;
    struct span text = kept ? (struct span){rest.data + 1, rest.size - 2} : SPAN("");
    if (code != 0 && span_equal(text, SPAN(NOTHING_SAID))) {
        text = SPAN(""); /* as it was: the bytes kept are the same on every member */
    }
    keep_answer(sessions, session, text);
    session->kept = session->kept && kept;
    return true;
}

enum status sessions_read(struct sessions *sessions, struct span lines, uint64_t index) {
    sessions_clear(sessions);
    while (lines.size > 0) {
        const char *lf = memchr(lines.data, '\n', lines.size);
        size_t size = lf == NULL ? lines.size : (size_t)(lf - lines.data);
        if (lf == NULL || !read_one(sessions, (struct span){lines.data, size})) {
            sessions_clear(sessions);
            return STATUS_CORRUPT;
        }
        lines = (struct span){lf + 1, lines.size - size - 1};
    }
    const struct session *newest = sessions->lists[SESSION_BY_ANSWER].newest;
    if (newest != NULL && newest->done_index > index) {
        sessions_clear(sessions);
        return STATUS_CORRUPT;
    }
    return STATUS_OK;
}
