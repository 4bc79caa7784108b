/* Writing, reading and checking the lines of a snapshot file; see snapshot.h.
 *
 * The configuration travels as the text it had in its entry: it is found as a span between its
 * neighbours in the fixed order and never written anew. */
#include "wire/snapshot.h"

#include "base/assert.h"
#include "wire/cursor.h"
#include "wire/line.h"

#define SESSION_HEAD "{\"session\":"
#define STATE_HEAD "{\"state\":"
#define CHAIN_DIGITS 8u
#define TAG_BYTES_MAX 64u           /* [n,n,n], with numbers of sixteen digits */
#define HEADER_FIXED_BYTES_MAX 512u /* the header without configuration and tags */

enum stage {
    STAGE_HEADER,
    STAGE_STATE,
    STAGE_DONE,
    STAGE_BROKEN,
};

/* --- writing --- */

static void write_tags(struct buffer *out, const struct snapshot_header *header) {
    buffer_append_text(out, ",\"sessions\":[");
    for (uint32_t i = 0; i < header->tag_count; i++) {
        const struct entry_tag *tag = &header->tags[i];
        buffer_append_text(out, i > 0 ? ",[" : "[");
        buffer_append_u64(out, tag->node);
        buffer_append_char(out, ',');
        buffer_append_u64(out, tag->incarnation);
        buffer_append_char(out, ',');
        buffer_append_u64(out, tag->sequence);
        buffer_append_char(out, ']');
    }
    buffer_append_text(out, "]}");
}

uint32_t snapshot_write_header(struct buffer *out, const struct snapshot_header *header) {
    ASSERT(header->tag_count <= TAGS_MAX);
    ASSERT(header->configuration.size >= 2);
    ASSERT(header->index <= NUMBER_MAX && header->term <= NUMBER_MAX);
    /* Room for all of it first: an append that grows may move the content to the front. */
    buffer_reserve(out, HEADER_FIXED_BYTES_MAX + header->configuration.size +
                            header->tag_count * TAG_BYTES_MAX);
    size_t line_start = out->size;
    buffer_append_text(out, "{\"snapshot\":{\"cluster\":\"");
    buffer_append_text(out, header->cluster_id);
    buffer_append_text(out, "\",\"index\":");
    buffer_append_u64(out, header->index);
    buffer_append_text(out, ",\"term\":");
    buffer_append_u64(out, header->term);
    buffer_append_format(out, ",\"chain\":\"%08x\",\"time\":", header->chain_crc);
    buffer_append_u64(out, header->time_ms);
    buffer_append_text(out, ",\"configuration_index\":");
    buffer_append_u64(out, header->configuration_index);
    buffer_append_text(out, ",\"configuration\":");
    buffer_append_span(out, header->configuration);
    write_tags(out, header);
    return line_seal(out, line_start, 0);
}

static uint32_t write_value(struct buffer *out, struct span head, struct span json,
                            uint32_t seed) {
    buffer_reserve(out, json.size + HEADER_FIXED_BYTES_MAX);
    size_t line_start = out->size;
    buffer_append_span(out, head);
    buffer_append_span(out, json);
    return line_seal(out, line_start, seed);
}

uint32_t snapshot_write_session(struct buffer *out, struct span json, uint32_t seed) {
    return write_value(out, SPAN(SESSION_HEAD), json, seed);
}

uint32_t snapshot_write_state(struct buffer *out, struct span json, uint32_t seed) {
    return write_value(out, SPAN(STATE_HEAD), json, seed);
}

void snapshot_write_end(struct buffer *out, uint64_t state_lines, uint64_t bytes_before,
                        uint32_t seed) {
    buffer_reserve(out, HEADER_FIXED_BYTES_MAX);
    size_t line_start = out->size;
    buffer_append_text(out, "{\"end\":{\"lines\":");
    buffer_append_u64(out, state_lines);
    buffer_append_text(out, ",\"bytes\":");
    buffer_append_u64(out, bytes_before);
    buffer_append_char(out, '}');
    line_seal(out, line_start, seed);
}

/* --- reading --- */

static bool read_cluster(struct cursor *cursor, char *cluster_id) {
    struct span id;
    if (!cursor_text(cursor, SPAN("{\"snapshot\":{\"cluster\":\"")) ||
        !cursor_until(cursor, '"', &id) || (id.size != 0 && id.size != CLUSTER_ID_BYTES - 1)) {
        return false;
    }
    memset(cluster_id, 0, CLUSTER_ID_BYTES);
    memcpy(cluster_id, id.data, id.size);
    for (size_t i = 0; i < id.size; i++) {
        if (strchr("0123456789abcdef", id.data[i]) == NULL || id.data[i] == 0) {
            return false;
        }
    }
    return true;
}

static bool read_chain(struct cursor *cursor, uint32_t *chain_crc) {
    struct span digits;
    if (!cursor_text(cursor, SPAN(",\"chain\":\"")) || !cursor_until(cursor, '"', &digits) ||
        digits.size != CHAIN_DIGITS) {
        return false;
    }
    *chain_crc = 0;
    for (size_t i = 0; i < digits.size; i++) {
        char c = digits.data[i];
        bool decimal = c >= '0' && c <= '9';
        if (!decimal && !(c >= 'a' && c <= 'f')) {
            return false;
        }
        *chain_crc = (*chain_crc << 4) | (uint32_t)(decimal ? c - '0' : c - 'a' + 10);
    }
    return true;
}

static bool read_tags(struct cursor *cursor, struct snapshot_header *header) {
    header->tag_count = 0;
    while (!cursor_text(cursor, SPAN("]}"))) {
        if (header->tag_count == TAGS_MAX ||
            (header->tag_count > 0 && !cursor_text(cursor, SPAN(",")))) {
            return false;
        }
        struct entry_tag *tag = &header->tags[header->tag_count++];
        if (!cursor_member(cursor, SPAN("["), &tag->node) ||
            !cursor_member(cursor, SPAN(","), &tag->incarnation) ||
            !cursor_member(cursor, SPAN(","), &tag->sequence) ||
            !cursor_text(cursor, SPAN("]"))) {
            return false;
        }
    }
    return cursor->at == cursor->end;
}

/* The configuration may hold anything, but behind the sessions' key there are only digits,
 * brackets and commas: walking back over them from the end finds where the configuration ends.
 */
static bool split_configuration(struct cursor *cursor, struct span *configuration) {
    static const struct span key = {",\"sessions\":", sizeof(",\"sessions\":") - 1};
    struct span rest = cursor_rest(cursor);
    size_t at = rest.size > 0 ? rest.size - 1 : 0; /* not the closing brace */
    while (at > 0 && rest.data[at - 1] != ':') {
        at--;
    }
    if (at < key.size || memcmp(rest.data + at - key.size, key.data, key.size) != 0) {
        return false;
    }
    *configuration = (struct span){rest.data, at - key.size};
    cursor->at = rest.data + at;
    return configuration->size >= 2 && configuration->data[0] == '{' &&
           configuration->data[configuration->size - 1] == '}';
}

enum status snapshot_read_header(struct span line, struct snapshot_header *header,
                                 uint32_t *crc) {
    struct span body;
    if (line_check(line, 0, &body, crc) != STATUS_OK ||
        memchr(body.data, '\n', body.size) != NULL) {
        return STATUS_CORRUPT;
    }
    struct cursor cursor = cursor_over(body);
    if (!read_cluster(&cursor, header->cluster_id) ||
        !cursor_member(&cursor, SPAN(",\"index\":"), &header->index) || header->index == 0 ||
        !cursor_member(&cursor, SPAN(",\"term\":"), &header->term) ||
        !read_chain(&cursor, &header->chain_crc) ||
        !cursor_member(&cursor, SPAN(",\"time\":"), &header->time_ms) ||
        !cursor_member(&cursor, SPAN(",\"configuration_index\":"),
                       &header->configuration_index) ||
        !cursor_text(&cursor, SPAN(",\"configuration\":")) ||
        !split_configuration(&cursor, &header->configuration) ||
        !cursor_text(&cursor, SPAN("[")) || !read_tags(&cursor, header)) {
        return STATUS_CORRUPT;
    }
    return STATUS_OK;
}

/* --- checking a file as it streams by --- */

void snapshot_check_init(struct snapshot_check *check) {
    memset(check, 0, sizeof(*check));
    buffer_init(&check->partial);
    buffer_init(&check->header_line);
}

void snapshot_check_clear(struct snapshot_check *check) {
    buffer_free(&check->partial);
    buffer_free(&check->header_line);
}

static enum status check_header(struct snapshot_check *check, struct span line) {
    buffer_append_span(&check->header_line, line);
    check->stage = STAGE_STATE;
    return snapshot_read_header(buffer_span(&check->header_line), &check->header, &check->seed);
}

static enum status check_end(struct snapshot_check *check, struct cursor cursor) {
    uint64_t lines;
    uint64_t bytes;
    if (!cursor_member(&cursor, SPAN("{\"end\":{\"lines\":"), &lines) ||
        !cursor_member(&cursor, SPAN(",\"bytes\":"), &bytes) ||
        !cursor_text(&cursor, SPAN("}")) || cursor.at != cursor.end ||
        lines != check->state_lines || bytes != check->bytes) {
        return STATUS_CORRUPT;
    }
    check->stage = STAGE_DONE;
    return STATUS_OK;
}

static enum status check_body(struct snapshot_check *check, struct span line) {
    struct span body;
    uint32_t crc;
    if (line_check(line, check->seed, &body, &crc) != STATUS_OK) {
        return STATUS_CORRUPT;
    }
    struct cursor cursor = cursor_over(body);
    bool session = check->state_lines == 0 && cursor_text(&cursor, SPAN(SESSION_HEAD));
    if (!session && !cursor_text(&cursor, SPAN(STATE_HEAD))) {
        return check_end(check, cursor);
    }
    struct span json = cursor_rest(&cursor);
    if (json.size == 0) {
        return STATUS_CORRUPT;
    }
    check->seed = crc;
    if (session) {
        check->session_lines++;
        return check->session != NULL ? check->session(check->context, json) : STATUS_OK;
    }
    check->state_lines++;
    return check->state != NULL ? check->state(check->context, json) : STATUS_OK;
}

static enum status check_line(struct snapshot_check *check, struct span line) {
    switch ((enum stage)check->stage) {
    case STAGE_HEADER:
        return check_header(check, line);
    case STAGE_STATE:
        return check_body(check, line);
    case STAGE_DONE:
    case STAGE_BROKEN:
        break;
    }
    return STATUS_CORRUPT;
}

/* Take the bytes up to the first LF; a line that came in one piece is checked where it stands.
 */
static enum status check_next(struct snapshot_check *check, struct span *bytes) {
    const char *lf = memchr(bytes->data, '\n', bytes->size);
    size_t size = lf == NULL ? bytes->size : (size_t)(lf - bytes->data) + 1;
    struct span piece = {bytes->data, size};
    *bytes = (struct span){bytes->data + size, bytes->size - size};
    if (buffer_count(&check->partial) + size > SNAPSHOT_LINE_BYTES_MAX) {
        return STATUS_CORRUPT;
    }
    if (lf != NULL && buffer_count(&check->partial) == 0) {
        enum status status = check_line(check, piece);
        check->bytes += size;
        return status;
    }
    buffer_append_span(&check->partial, piece);
    if (lf == NULL) {
        return STATUS_OK;
    }
    enum status status = check_line(check, buffer_span(&check->partial));
    check->bytes += buffer_count(&check->partial);
    buffer_clear(&check->partial);
    return status;
}

enum status snapshot_check_feed(struct snapshot_check *check, struct span bytes) {
    while (bytes.size > 0) {
        enum status status = check_next(check, &bytes);
        if (status != STATUS_OK) {
            check->stage = STAGE_BROKEN;
            return status;
        }
    }
    return check->stage == STAGE_BROKEN ? STATUS_CORRUPT : STATUS_OK;
}

uint64_t snapshot_check_line(const struct snapshot_check *check) {
    bool behind_header = check->stage != STAGE_HEADER && buffer_count(&check->header_line) > 0;
    return check->session_lines + check->state_lines + (behind_header ? 2 : 1);
}

enum status snapshot_check_finish(struct snapshot_check *check) {
    bool whole = check->stage == STAGE_DONE && buffer_count(&check->partial) == 0;
    return whole ? STATUS_OK : STATUS_CORRUPT;
}
