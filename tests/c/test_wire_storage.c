/* The lines that are stored: entries, meta records, snapshots. What is written comes back, and
 * a line in which any byte has changed is refused. */
#include "base/random.h"
#include "check.h"
#include "wire/entry.h"
#include "wire/line.h"
#include "wire/meta.h"
#include "wire/snapshot.h"

static struct entry sample(enum entry_kind kind) {
    struct entry entry = {
        .index = 7,
        .term = 2,
        .time_ms = 1732406400123,
        .kind = kind,
    };
    if (kind == ENTRY_COMMAND) {
        entry.tag = (struct entry_tag){.node = 1, .incarnation = 4, .sequence = 93};
        entry.body = SPAN("{\"Put\":[\"a\",1]}");
    } else if (kind == ENTRY_CONFIGURATION) {
        entry.body = SPAN("{\"members\":[]}");
    }
    return entry;
}

static void check_entry_equal(const struct entry *a, const struct entry *b) {
    CHECK(a->index == b->index && a->term == b->term && a->time_ms == b->time_ms);
    CHECK(a->kind == b->kind);
    CHECK(a->tag.node == b->tag.node && a->tag.incarnation == b->tag.incarnation &&
          a->tag.sequence == b->tag.sequence);
    CHECK(span_equal(a->session, b->session) && a->session_seq == b->session_seq);
    CHECK(span_equal(a->body, b->body));
}

static void test_entry_text(void) {
    struct buffer line;
    buffer_init(&line);
    struct entry entry = sample(ENTRY_COMMAND);
    entry_write(&line, &entry, 0);
    static const char begin[] = "{\"index\":7,\"term\":2,\"time\":1732406400123,"
                                "\"from\":[1,4,93],\"input\":{\"Put\":[\"a\",1]},\"crc32c\":\"";
    CHECK(buffer_count(&line) == sizeof(begin) - 1 + 8 + 3);
    CHECK(memcmp(buffer_peek(&line), begin, sizeof(begin) - 1) == 0);
    buffer_free(&line);
}

static void test_entry_round_trip(void) {
    static const enum entry_kind kinds[] = {ENTRY_COMMAND, ENTRY_NOOP, ENTRY_CONFIGURATION};
    for (size_t k = 0; k < 4; k++) {
        struct buffer line;
        buffer_init(&line);
        buffer_append_text(&line, "before it");
        buffer_consume(&line, 6); /* a buffer whose content does not begin at its start */
        struct entry entry = sample(kinds[k % 3]);
        if (k == 3) {
            entry.session = SPAN("a \\\"b\\\" \\\\");
            entry.session_seq = NUMBER_MAX;
        }
        uint32_t crc = entry_write(&line, &entry, 0x1234);
        buffer_consume(&line, 3);
        struct entry read;
        uint32_t read_crc;
        CHECK(entry_read(buffer_span(&line), 0x1234, &read, &read_crc) == STATUS_OK);
        CHECK(read_crc == crc);
        check_entry_equal(&read, &entry);
        CHECK(entry_read(buffer_span(&line), 0x1235, &read, &read_crc) == STATUS_CORRUPT);
        CHECK(entry_parse(buffer_span(&line), &read) == STATUS_OK);
        check_entry_equal(&read, &entry);
        buffer_free(&line);
    }
}

/* Sealed all right, but not in the fixed form. */
static void check_entry_form(const char *text, bool right) {
    struct buffer line;
    buffer_init(&line);
    buffer_append_text(&line, text);
    line_seal(&line, 0, 0);
    struct entry entry;
    uint32_t crc;
    enum status status = entry_read(buffer_span(&line), 0, &entry, &crc);
    CHECK((status == STATUS_OK) == right);
    CHECK(!right || buffer_count(&line) >= ENTRY_LINE_BYTES_LEAST);
    buffer_free(&line);
}

/* A receiver makes room for no more entries than so many bytes can hold. */
static void test_shortest_entry(void) {
    struct buffer line;
    buffer_init(&line);
    struct entry entry = {.index = 1, .term = 1, .kind = ENTRY_NOOP};
    entry_write(&line, &entry, 0);
    CHECK(buffer_count(&line) == ENTRY_LINE_BYTES_LEAST);
    buffer_clear(&line);
    struct entry command = {
        .index = 1, .term = 1, .kind = ENTRY_COMMAND, .tag = {1, 1, 1}, .body = SPAN("1")};
    entry_write(&line, &command, 0);
    CHECK(buffer_count(&line) >= ENTRY_LINE_BYTES_LEAST);
    buffer_free(&line);
}

static void test_entry_forms(void) {
    check_entry_form("{\"index\":1,\"term\":1,\"time\":0,\"noop\":true", true);
    check_entry_form("{\"index\":9007199254740991,\"term\":1,\"time\":0,\"noop\":true", true);
    check_entry_form("{\"index\":9007199254740992,\"term\":1,\"time\":0,\"noop\":true", false);
    check_entry_form("{\"index\":99999999999999999999,\"term\":1,\"time\":0,\"noop\":true",
                     false);
    check_entry_form("{\"index\":0,\"term\":1,\"time\":0,\"noop\":true", false);
    check_entry_form("{\"index\":01,\"term\":1,\"time\":0,\"noop\":true", false);
    check_entry_form("{\"index\":-1,\"term\":1,\"time\":0,\"noop\":true", false);
    check_entry_form("{\"index\":1.0,\"term\":1,\"time\":0,\"noop\":true", false);
    check_entry_form("{\"index\":,\"term\":1,\"time\":0,\"noop\":true", false);
    check_entry_form("{\"term\":1,\"index\":1,\"time\":0,\"noop\":true", false);
    check_entry_form("{\"index\":1,\"term\":1,\"time\":0,\"noop\":false", false);
    check_entry_form("{\"index\":1,\"term\":1,\"time\":0,\"noop\":true,\"x\":1", false);
    check_entry_form("{\"index\":1,\"term\":1,\"time\":0", false);
    check_entry_form("{\"index\":1,\"term\":1,\"time\":0,\"input\":1", false);
    check_entry_form("{\"index\":1,\"term\":1,\"time\":0,\"from\":[1,1,1],\"input\":1", true);
    check_entry_form("{\"index\":1,\"term\":1,\"time\":0,\"from\":[1,1],\"input\":1", false);
    check_entry_form("{\"index\":1,\"term\":1,\"time\":0,\"from\":[1,1,1],\"input\":", false);
    check_entry_form("{\"index\":1,\"term\":1,\"time\":0,\"from\":[1,1,1],\"input\":[1,\n2]",
                     false);
    static const struct {
        const char *session;
        bool right;
    } sessions[] = {
        {"[\"a\",1]", true},   {"[\"\\\"\",1]", true}, {"[\"\",1]", false},
        {"[\"a\",0]", false},  {"[\"a\"]", false},     {"[\"a\",1", false},
        {"[a,1]", false},      {"[\"a\\\",1]", false}, {"[\"a\",1,2]", false},
        {"[\"a\", 1]", false},
    };
    for (size_t i = 0; i < sizeof(sessions) / sizeof(sessions[0]); i++) {
        char text[128];
        snprintf(
            text, sizeof(text),
            "{\"index\":1,\"term\":1,\"time\":0,\"from\":[1,1,1],\"session\":%s,\"input\":1",
            sessions[i].session);
        check_entry_form(text, sessions[i].right);
    }
    check_entry_form("{\"index\":1,\"term\":1,\"time\":0,\"configuration\":{}", true);
    check_entry_form("{\"index\":1,\"term\":1,\"time\":0,\"configuration\":[]", false);
}

static struct meta sample_meta(void) {
    struct meta meta = {
        .cluster_id = "0123456789abcdef0123456789abcdef",
        .address = "127.0.0.1:4000",
        .node_id = 3,
        .incarnation = 5,
        .term = 7,
        .voted_for = 2,
        .removed = true,
    };
    return meta;
}

static void test_meta_round_trip(void) {
    struct meta metas[3] = {sample_meta(), {.removed = false}, sample_meta()};
    metas[2].term = NUMBER_MAX;
    memset(metas[2].address, 'x', ADDRESS_BYTES_MAX - 1);
    for (size_t i = 0; i < 3; i++) {
        struct buffer line;
        buffer_init(&line);
        meta_write(&line, &metas[i]);
        struct meta read;
        CHECK(meta_read(buffer_span(&line), &read) == STATUS_OK);
        CHECK(strcmp(read.cluster_id, metas[i].cluster_id) == 0);
        CHECK(strcmp(read.address, metas[i].address) == 0);
        CHECK(read.node_id == metas[i].node_id && read.incarnation == metas[i].incarnation);
        CHECK(read.term == metas[i].term && read.voted_for == metas[i].voted_for);
        CHECK(read.removed == metas[i].removed);
        buffer_free(&line);
    }
}

static void test_meta_forms(void) {
    static const char *const wrong[] = {
        "{\"cluster\":\"\",\"address\":\"a:1\",\"node\":1,\"incarnation\":1,\"term\":1,\"voted_"
        "for\":0",
        "{\"cluster\":\"\",\"address\":\"a:1\",\"node\":1,\"incarnation\":1,\"term\":1,"
        "\"voted_for\":0,\"removed\":false,\"x\":1",
        "{\"cluster\":\"0123\",\"address\":\"a:1\",\"node\":1,\"incarnation\":1,\"term\":1,"
        "\"voted_for\":0,\"removed\":false",
        "{\"cluster\":\"\",\"address\":\"a:1\",\"node\":9007199254740992,\"incarnation\":1,"
        "\"term\":1,"
        "\"voted_for\":0,\"removed\":false",
        "{\"cluster\":\"\",\"address\":\"a 1\",\"node\":1,\"incarnation\":1,\"term\":1,"
        "\"voted_for\":0,\"removed\":false",
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct buffer line;
        buffer_init(&line);
        buffer_append_text(&line, wrong[i]);
        line_seal(&line, 0, 0);
        struct meta meta;
        CHECK(meta_read(buffer_span(&line), &meta) == STATUS_CORRUPT);
        buffer_free(&line);
    }
    struct meta meta = sample_meta();
    CHECK(meta_valid(&meta));
    meta.address[3] = '"';
    CHECK(!meta_valid(&meta));
    meta = sample_meta();
    meta.term = NUMBER_MAX + 1;
    CHECK(!meta_valid(&meta));
}

static void make_header(struct snapshot_header *header, struct span configuration,
                        uint32_t tags) {
    *header = (struct snapshot_header){
        .cluster_id = "0123456789abcdef0123456789abcdef",
        .index = 9,
        .term = 3,
        .chain_crc = 0x9a3f00c2,
        .time_ms = 1732406400123,
        .configuration_index = 5,
        .configuration = configuration,
        .tag_count = tags,
    };
    for (uint32_t i = 0; i < tags; i++) {
        header->tags[i] = (struct entry_tag){i + 1, NUMBER_MAX, i * 3};
    }
}

static void test_snapshot_header_round_trip(void) {
    static const struct span configurations[] = {
        {"{}", 2},
        {"{\"sessions\":[[1,2,3]]}", 22},
        {"{\"a\":\",\\\"sessions\\\":[\"}", 23},
    };
    static const uint32_t counts[] = {0, 1, TAGS_MAX};
    static struct snapshot_header header;
    static struct snapshot_header read;
    for (size_t c = 0; c < 9; c++) {
        make_header(&header, configurations[c / 3], counts[c % 3]);
        struct buffer line;
        buffer_init(&line);
        uint32_t crc = snapshot_write_header(&line, &header);
        uint32_t read_crc;
        CHECK(snapshot_read_header(buffer_span(&line), &read, &read_crc) == STATUS_OK);
        CHECK(crc == read_crc && strcmp(read.cluster_id, header.cluster_id) == 0);
        CHECK(read.index == 9 && read.term == 3 && read.chain_crc == 0x9a3f00c2);
        CHECK(read.time_ms == header.time_ms && read.configuration_index == 5);
        CHECK(span_equal(read.configuration, header.configuration));
        CHECK(read.tag_count == header.tag_count);
        CHECK(memcmp(read.tags, header.tags, header.tag_count * sizeof(header.tags[0])) == 0);
        buffer_free(&line);
    }
}

#define SESSION_LINES 2u

static void write_snapshot(struct buffer *out, unsigned lines) {
    static struct snapshot_header header;
    make_header(&header, SPAN("{\"members\":[1]}"), 2);
    uint32_t seed = snapshot_write_header(out, &header);
    for (unsigned i = 0; i < SESSION_LINES; i++) {
        seed = snapshot_write_session(out, SPAN("[\"a\",1,5,7,0,{}]"), seed);
    }
    for (unsigned i = 0; i < lines; i++) {
        seed = snapshot_write_state(out, i % 2 == 0 ? SPAN("{\"a\":1}") : SPAN("[1,2]"), seed);
    }
    snapshot_write_end(out, lines, buffer_count(out), seed);
}

struct counted {
    unsigned sessions;
    unsigned states;
};

static enum status count_session(void *context, struct span json) {
    struct counted *counted = context;
    CHECK(counted->states == 0);
    CHECK(span_equal(json, SPAN("[\"a\",1,5,7,0,{}]")));
    counted->sessions++;
    return STATUS_OK;
}

static enum status count_state(void *context, struct span json) {
    struct counted *counted = context;
    CHECK(json.data[0] == (counted->states % 2 == 0 ? '{' : '['));
    counted->states++;
    return STATUS_OK;
}

/* Feed in pieces of `piece` bytes; whether it was a whole snapshot. */
static bool check_snapshot(struct span file, size_t piece, unsigned *states) {
    static struct snapshot_check check;
    snapshot_check_init(&check);
    struct counted counted = {0};
    check.context = &counted;
    check.session = count_session;
    check.state = count_state;
    enum status status = STATUS_OK;
    while (file.size > 0 && status == STATUS_OK) {
        size_t size = piece < file.size ? piece : file.size;
        status = snapshot_check_feed(&check, (struct span){file.data, size});
        file = (struct span){file.data + size, file.size - size};
    }
    if (status == STATUS_OK) {
        status = snapshot_check_finish(&check);
    }
    CHECK(status != STATUS_OK || counted.sessions == SESSION_LINES);
    snapshot_check_clear(&check);
    *states = counted.states;
    return status == STATUS_OK;
}

static void test_snapshot_check(void) {
    struct buffer file;
    buffer_init(&file);
    write_snapshot(&file, 4);
    struct span whole = buffer_span(&file);
    unsigned states;
    for (size_t piece = 1; piece <= whole.size; piece++) {
        CHECK(check_snapshot(whole, piece, &states) && states == 4);
    }
    for (size_t size = 0; size < whole.size; size++) {
        CHECK(!check_snapshot((struct span){whole.data, size}, 7, &states));
    }
    buffer_append_char(&file, '\n');
    CHECK(!check_snapshot(buffer_span(&file), 50, &states));
    buffer_free(&file);
}

/* Drop, double and swap the lines of a snapshot: its chain shows it. */
static void test_snapshot_lines_moved(void) {
    struct buffer file;
    buffer_init(&file);
    write_snapshot(&file, 3);
    struct span lines[5 + SESSION_LINES];
    struct span rest = buffer_span(&file);
    for (unsigned i = 0; i < 5 + SESSION_LINES; i++) {
        const char *lf = memchr(rest.data, '\n', rest.size);
        lines[i] = (struct span){rest.data, (size_t)(lf - rest.data) + 1};
        rest = (struct span){lf + 1, rest.size - lines[i].size};
    }
    static const int orders[][8] = {
        {0, 1, 2, 3, 4, 5, 6, -1},  {0, 1, 2, 3, 4, 6, -1, -1}, {0, 1, 2, 4, 5, 6, -1, -1},
        {0, 1, 2, 3, 3, 4, 5, 6},   {0, 1, 2, 5, 4, 3, 6, -1},  {1, 2, 3, 4, 5, 6, -1, -1},
        {0, 6, -1, -1, -1, -1, -1}, {0, 1, 3, 4, 5, 6, -1, -1}, {0, 2, 1, 3, 4, 5, 6, -1},
        {0, 3, 1, 2, 4, 5, 6, -1},
    };
    for (size_t o = 0; o < sizeof(orders) / sizeof(orders[0]); o++) {
        struct buffer mixed;
        buffer_init(&mixed);
        for (int i = 0; i < 8 && orders[o][i] >= 0; i++) {
            buffer_append_span(&mixed, lines[orders[o][i]]);
        }
        unsigned states;
        CHECK(check_snapshot(buffer_span(&mixed), 1000, &states) == (o == 0));
        buffer_free(&mixed);
    }
    buffer_free(&file);
}

/* Every byte of a line, changed to every other value, is refused. */
static void test_every_flip_is_refused(void) {
    struct buffer lines[3];
    for (int i = 0; i < 3; i++) {
        buffer_init(&lines[i]);
    }
    struct entry entry = sample(ENTRY_COMMAND);
    entry_write(&lines[0], &entry, 77);
    struct meta meta = sample_meta();
    meta_write(&lines[1], &meta);
    static struct snapshot_header header;
    make_header(&header, SPAN("{\"members\":[1]}"), 2);
    snapshot_write_header(&lines[2], &header);
    for (int i = 0; i < 3; i++) {
        struct span line = buffer_span(&lines[i]);
        for (size_t at = 0; at < line.size; at++) {
            for (unsigned flip = 1; flip < 256; flip++) {
                lines[i].bytes[at] = (char)(lines[i].bytes[at] ^ (char)flip);
                uint32_t crc;
                struct entry read;
                static struct snapshot_header read_header;
                enum status status = i == 0   ? entry_read(line, 77, &read, &crc)
                                     : i == 1 ? meta_read(line, &meta)
                                              : snapshot_read_header(line, &read_header, &crc);
                CHECK(status == STATUS_CORRUPT);
                lines[i].bytes[at] = (char)(lines[i].bytes[at] ^ (char)flip);
            }
        }
        buffer_free(&lines[i]);
    }
}

int main(void) {
    test_entry_text();
    test_entry_round_trip();
    test_entry_forms();
    test_shortest_entry();
    test_meta_round_trip();
    test_meta_forms();
    test_snapshot_header_round_trip();
    test_snapshot_check();
    test_snapshot_lines_moved();
    test_every_flip_is_refused();
    puts("wire of storage: ok");
    return 0;
}
