/* Writing and reading the line of a log entry; see entry.h.
 *
 * This is the hot path: a line is written once on the leader and read once on each follower, so
 * nothing here allocates, copies the input twice or builds a tree. */
#include "wire/entry.h"

#include "base/assert.h"
#include "wire/cursor.h"
#include "wire/line.h"

#define NOOP_TEXT ",\"noop\":true"
#define SESSION_HEAD ",\"session\":[\""

static char *put_text(char *at, struct span text) {
    memcpy(at, text.data, text.size);
    return at + text.size;
}

static char *put_number(char *at, uint64_t number) {
    char digits[20];
    size_t first = sizeof(digits);
    do {
        digits[--first] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    return put_text(at, (struct span){digits + first, sizeof(digits) - first});
}

static char *put_tag(char *at, const struct entry_tag *tag) {
    at = put_text(at, SPAN(",\"from\":["));
    at = put_number(at, tag->node);
    *at++ = ',';
    at = put_number(at, tag->incarnation);
    *at++ = ',';
    at = put_number(at, tag->sequence);
    *at++ = ']';
    return at;
}

static char *put_session(char *at, const struct entry *entry) {
    if (entry->session.size == 0) {
        return at;
    }
    at = put_text(at, SPAN(SESSION_HEAD));
    at = put_text(at, entry->session);
    at = put_text(at, SPAN("\","));
    at = put_number(at, entry->session_seq);
    *at++ = ']';
    return at;
}

static char *put_payload(char *at, const struct entry *entry) {
    switch (entry->kind) {
    case ENTRY_COMMAND:
        at = put_tag(at, &entry->tag);
        at = put_session(at, entry);
        at = put_text(at, SPAN(",\"input\":"));
        return put_text(at, entry->body);
    case ENTRY_NOOP:
        return put_text(at, SPAN(NOOP_TEXT));
    case ENTRY_CONFIGURATION:
        at = put_text(at, SPAN(",\"configuration\":"));
        return put_text(at, entry->body);
    }
    ASSERT(false); /* no other kind exists */
    return at;
}

uint32_t entry_write(struct buffer *lines, const struct entry *entry, uint32_t previous_crc) {
    ASSERT(entry->index > 0 && entry->index <= NUMBER_MAX);
    ASSERT(entry->term <= NUMBER_MAX && entry->time_ms <= NUMBER_MAX);
    ASSERT((entry->body.size == 0) == (entry->kind == ENTRY_NOOP));
    ASSERT(entry->session.size <= SESSION_TEXT_BYTES_MAX);
    ASSERT((entry->session.size == 0) == (entry->session_seq == 0));
    char *begin = buffer_reserve(lines, entry->body.size + ENTRY_OVERHEAD_BYTES_MAX);
    size_t line_start = lines->size;
    char *at = put_text(begin, SPAN("{\"index\":"));
    at = put_number(at, entry->index);
    at = put_text(at, SPAN(",\"term\":"));
    at = put_number(at, entry->term);
    at = put_text(at, SPAN(",\"time\":"));
    at = put_number(at, entry->time_ms);
    at = put_payload(at, entry);
    buffer_extend(lines, (size_t)(at - begin));
    return line_seal(lines, line_start, previous_crc);
}

static bool read_tag(struct cursor *cursor, struct entry_tag *tag) {
    return cursor_member(cursor, SPAN(",\"from\":["), &tag->node) &&
           cursor_member(cursor, SPAN(","), &tag->incarnation) &&
           cursor_member(cursor, SPAN(","), &tag->sequence) && cursor_text(cursor, SPAN("]"));
}

/* True where none is there, too: lines of before there were sessions have none. */
static bool read_session(struct cursor *cursor, struct entry *entry) {
    return !cursor_text(cursor, SPAN(SESSION_HEAD)) ||
           (cursor_string(cursor, &entry->session) && entry->session.size > 0 &&
            entry->session.size <= SESSION_TEXT_BYTES_MAX &&
            cursor_member(cursor, SPAN(","), &entry->session_seq) && entry->session_seq > 0 &&
            cursor_text(cursor, SPAN("]")));
}

static bool read_payload(struct cursor *cursor, struct entry *entry) {
    if (read_tag(cursor, &entry->tag)) {
        entry->kind = ENTRY_COMMAND;
        if (!read_session(cursor, entry) || !cursor_text(cursor, SPAN(",\"input\":"))) {
            return false;
        }
        entry->body = cursor_rest(cursor);
        return entry->body.size > 0;
    }
    entry->tag = (struct entry_tag){0};
    if (cursor_text(cursor, SPAN(",\"configuration\":"))) {
        entry->kind = ENTRY_CONFIGURATION;
        entry->body = cursor_rest(cursor);
        return entry->body.size >= 2 && entry->body.data[0] == '{' &&
               entry->body.data[entry->body.size - 1] == '}';
    }
    entry->kind = ENTRY_NOOP;
    return cursor_text(cursor, SPAN(NOOP_TEXT)) && cursor->at == cursor->end;
}

static enum status parse_body(struct span body, struct entry *entry) {
    struct cursor cursor = cursor_over(body);
    struct entry read = {0};
    if (!cursor_member(&cursor, SPAN("{\"index\":"), &read.index) || read.index == 0 ||
        !cursor_member(&cursor, SPAN(",\"term\":"), &read.term) ||
        !cursor_member(&cursor, SPAN(",\"time\":"), &read.time_ms) ||
        !read_payload(&cursor, &read)) {
        return STATUS_CORRUPT;
    }
    *entry = read;
    return STATUS_OK;
}

enum status entry_read(struct span line, uint32_t previous_crc, struct entry *entry,
                       uint32_t *crc) {
    struct span body;
    enum status status = line_check(line, previous_crc, &body, crc);
    if (status != STATUS_OK) {
        return status;
    }
    /* An LF inside would become two lines on the disk, neither of them right. */
    if (memchr(body.data, '\n', body.size) != NULL) {
        return STATUS_CORRUPT;
    }
    return parse_body(body, entry);
}

enum status entry_parse(struct span line, struct entry *entry) {
    struct span body;
    uint32_t crc;
    enum status status = line_peek_crc(line, &body, &crc);
    return status == STATUS_OK ? parse_body(body, entry) : status;
}
