/* Random damage to every file of a directory: flips, garbage, zeros, cuts, pieces and lines
 * dropped, doubled and swapped, files gone, older copies put back. The store opens or refuses;
 * it never crashes, and what it shows is right: each recovered line and the snapshot are
 * compared with what was written. What is missing was noticed - but for the end of a file cut
 * off exactly between two lines, which no file can know of.
 *
 * Usage: test_storage_damage [count [seed]] (defaults 10000 1). */
#include <inttypes.h>

#include "base/memory.h"
#include "base/random.h"
#include "check.h"
#include "memfs.h"
#include "storage/segment.h"
#include "storerig.h"

#define SNAPSHOT_AT 20u
#define LAST 60u
#define TERM 5u
#define VOTE 2u
#define FILES_MAX 64

static struct logmaker the_log;
static struct storerig rig;
static struct buffer the_snapshot;
static struct buffer older_meta;
static struct buffer older_segment; /* an earlier copy of the last one */
static char last_name[NAME_BYTES_MAX];
static struct random dice;

/* What was done, to be told when it goes wrong, and whether it may go unnoticed. */
static char deed[200];
static bool may_lose_tail;

static uint64_t roll(uint64_t low, uint64_t high) {
    return random_between(&dice, low, high);
}

static void append(uint64_t count, size_t bytes) {
    uint64_t first = the_log.last + 1;
    for (uint64_t i = 0; i < count; i++) {
        logmaker_add(&the_log, TERM, bytes);
    }
    CHECK(logmaker_append(&the_log, rig.store, first, the_log.last, &rig.error) == STATUS_OK);
    CHECK(store_sync(rig.store, &rig.error) == STATUS_OK);
}

static void copy_of(const char *name, struct buffer *into) {
    buffer_clear(into);
    CHECK(memfs_peek(name) != NULL);
    buffer_append_span(into, buffer_span(memfs_peek(name)));
}

static void find_last_segment(void) {
    last_name[0] = 0;
    for (int i = 0; i < memfs_count(); i++) {
        const char *name = memfs_name(i);
        uint64_t index;
        if (name != NULL && segment_parse_name("log-", name, &index) &&
            strcmp(name, last_name) > 0) {
            memcpy(last_name, name, strlen(name) + 1);
        }
    }
}

/* A directory as a running process leaves it when it is killed, or (`closed`) as one that ended
 * well. */
static struct memfs_image *make_directory(bool closed) {
    storerig_clear(&rig);
    memfs_reset();
    storerig_init(&rig, MEMFS_PATH, 3000);
    logmaker_clear(&the_log);
    CHECK(storerig_open(&rig) == STATUS_OK);
    CHECK(storerig_save_term(&rig, TERM - 1, 1) == STATUS_OK);
    copy_of("meta.jsonl", &older_meta);
    CHECK(storerig_save_term(&rig, TERM, VOTE) == STATUS_OK);
    append(35, 100);
    CHECK(storerig_snapshot(&rig, STORE_SLOT_OWN, &the_log, SNAPSHOT_AT, false, 0) ==
          STATUS_OK);
    append(20, 150);
    find_last_segment();
    copy_of(last_name, &older_segment);
    append(LAST - 55, 30);
    CHECK(memfs_peek(last_name) != NULL);
    find_last_segment();
    buffer_clear(&the_snapshot);
    logmaker_snapshot(&the_snapshot, &the_log, SNAPSHOT_AT, 5);
    if (!closed) {
        memfs_die();
    }
    storerig_close(&rig);
    return memfs_save();
}

/* --- the damage ----------------------------------------------------------------------- */

static size_t text_size(const struct buffer *content) {
    size_t size = content->size;
    while (size > 0 && content->bytes[size - 1] == '\n') {
        size--;
    }
    return size;
}

static void flip_bit(struct buffer *content) {
    size_t at = (size_t)roll(0, content->size - 1);
    unsigned bit = (unsigned)roll(0, 7);
    content->bytes[at] = (char)(content->bytes[at] ^ (1 << bit));
    CHECK(snprintf(deed, sizeof(deed), "bit %u of byte %zu flipped", bit, at) > 0);
}

static void flip_bit_of_text(struct buffer *content) {
    size_t size = content->size;
    content->size = text_size(content) + 1;
    flip_bit(content);
    content->size = size;
}

static void put_garbage(struct buffer *content) {
    size_t at = (size_t)roll(0, text_size(content) - 1);
    size_t size = (size_t)roll(1, 40);
    for (size_t i = at; i < at + size && i < content->size; i++) {
        content->bytes[i] = (char)roll(0, 255);
    }
    CHECK(snprintf(deed, sizeof(deed), "%zu bytes of garbage at %zu", size, at) > 0);
}

static void put_zeros(struct buffer *content) {
    size_t at = (size_t)roll(0, text_size(content) - 1);
    size_t size = (size_t)roll(1, 600);
    if (roll(0, 1) == 1) {
        at -= at % 512;
        size = 512;
    }
    size = at + size > content->size ? content->size - at : size;
    /* Whole lines gone from the end, to the first byte, look like what was never written. */
    may_lose_tail = at > 0 && content->bytes[at - 1] == '\n' && at + size >= text_size(content);
    memset(content->bytes + at, 0, size);
    CHECK(snprintf(deed, sizeof(deed), "%zu zeros at %zu", size, at) > 0);
}

static void cut_end(struct buffer *content) {
    size_t at = (size_t)roll(0, text_size(content));
    content->size = at;
    may_lose_tail = true;
    CHECK(snprintf(deed, sizeof(deed), "cut at %zu", at) > 0);
}

static void replace(struct buffer *content, const struct buffer *with) {
    buffer_clear(content);
    buffer_append_span(content, buffer_span(with));
}

/* Take bytes from..to out and put them in again `times` times. */
static void repeat_piece(struct buffer *content, size_t from, size_t to, int times) {
    struct buffer mixed = {0};
    buffer_append(&mixed, content->bytes, from);
    for (int i = 0; i < times; i++) {
        buffer_append(&mixed, content->bytes + from, to - from);
    }
    buffer_append(&mixed, content->bytes + to, content->size - to);
    replace(content, &mixed);
    buffer_free(&mixed);
}

static void drop_or_double_piece(struct buffer *content) {
    size_t text = text_size(content);
    size_t from = (size_t)roll(0, text - 1);
    size_t to = from + (size_t)roll(1, 100);
    to = to > text ? text : to;
    int times = roll(0, 1) == 1 ? 2 : 0;
    repeat_piece(content, from, to, times);
    may_lose_tail = times == 0;
    CHECK(snprintf(deed, sizeof(deed), "bytes %zu to %zu %d times", from, to, times) > 0);
}

static void drop_or_double_lines(struct buffer *content) {
    size_t from = (size_t)roll(0, text_size(content) - 1);
    while (from > 0 && content->bytes[from - 1] != '\n') {
        from--;
    }
    size_t to = from;
    for (uint64_t lines = roll(1, 3); lines > 0 && to < text_size(content); lines--) {
        to = (size_t)((char *)memchr(content->bytes + to, '\n', content->size - to) -
                      content->bytes) +
             1;
    }
    int times = roll(0, 1) == 1 ? 2 : 0;
    repeat_piece(content, from, to, times);
    may_lose_tail = times == 0;
    CHECK(snprintf(deed, sizeof(deed), "lines at %zu to %zu %d times", from, to, times) > 0);
}

static void swap_lines(struct buffer *content) {
    char *text = content->bytes;
    char *first = memchr(text, '\n', text_size(content));
    size_t one = first != NULL ? (size_t)(first - text) + 1 : 0;
    char *second = first != NULL ? memchr(first + 1, '\n', content->size - one) : NULL;
    if (second == NULL || second == first + 1) {
        flip_bit_of_text(content);
        return;
    }
    size_t two = (size_t)(second - first);
    struct buffer swapped = {0};
    buffer_append(&swapped, text + one, two);
    buffer_append(&swapped, text, one);
    buffer_append(&swapped, text + one + two, content->size - one - two);
    replace(content, &swapped);
    buffer_free(&swapped);
    CHECK(snprintf(deed, sizeof(deed), "the first two lines swapped") > 0);
}

static const char *pick_file(void) {
    const char *names[FILES_MAX];
    uint64_t count = 0;
    for (int i = 0; i < memfs_count(); i++) {
        const char *name = memfs_name(i);
        if (name != NULL && strcmp(name, "lock") != 0 && count < FILES_MAX) {
            names[count++] = name;
        }
    }
    return names[roll(0, count - 1)];
}

/* One deed on one file. */
static void do_damage(char target[NAME_BYTES_MAX]) {
    static void (*const ways[])(struct buffer *) = {
        flip_bit, flip_bit_of_text, flip_bit_of_text,     put_garbage,          put_zeros,
        cut_end,  swap_lines,       drop_or_double_piece, drop_or_double_lines,
    };
    const char *name = pick_file();
    memcpy(target, name, strlen(name) + 1);
    may_lose_tail = false;
    uint64_t way = roll(0, 19);
    if (way == 19) {
        memfs_remove(target);
        may_lose_tail = true;
        CHECK(snprintf(deed, sizeof(deed), "removed") > 0);
        return;
    }
    struct buffer content = {0};
    copy_of(target, &content);
    if (way == 18 && strcmp(target, last_name) == 0) {
        replace(&content, &older_segment);
        may_lose_tail = true;
        CHECK(snprintf(deed, sizeof(deed), "an older copy") > 0);
    } else if (way == 18 && strcmp(target, "meta.jsonl") == 0) {
        replace(&content, &older_meta);
        CHECK(snprintf(deed, sizeof(deed), "an older copy") > 0);
    } else {
        ways[way % (sizeof(ways) / sizeof(ways[0]))](&content);
    }
    memfs_put(target, buffer_span(&content));
    buffer_free(&content);
}

/* --- the verdict ---------------------------------------------------------------------- */

static void complain(const char *target, const char *what) {
    fprintf(stderr, "%s: %s: %s (last %" PRIu64 ", cut %d, quarantined %d; %s%s)\n", target,
            deed, what, rig.recovery.last_index, rig.recovery.tail_cut,
            rig.recovery.quarantined, rig.recovery.note, rig.error.text);
    exit(1);
}

static void check_snapshot(const char *target) {
    struct buffer read = {0};
    uint64_t total;
    if (store_snapshot_read(rig.store, SNAPSHOT_AT, 0, 1u << 20, &read, &total, &rig.error) !=
            STATUS_OK ||
        !span_equal(buffer_span(&read), buffer_span(&the_snapshot))) {
        complain(target, "a wrong snapshot");
    }
    buffer_free(&read);
}

static void check_opened(const char *target) {
    const struct store_recovery *found = &rig.recovery;
    if (found->meta.term != TERM || found->meta.voted_for != VOTE) {
        complain(target, "another term or vote");
    }
    uint64_t snapshot = found->snapshot_index;
    bool snapshot_gone = snapshot == 0 && strstr(target, "snapshot") == target;
    if (snapshot != SNAPSHOT_AT && !snapshot_gone) {
        complain(target, "another snapshot");
    }
    if (snapshot != 0) {
        check_snapshot(target);
    }
    if (found->last_index > LAST || rig.entry_count != found->last_index - snapshot) {
        complain(target, "entries that never were");
    }
    struct span rest = buffer_span(&rig.lines);
    for (uint64_t index = snapshot + 1; index <= found->last_index; index++) {
        struct span line = logmaker_line(&the_log, index);
        if (rest.size < line.size || memcmp(rest.data, line.data, line.size) != 0) {
            complain(target, "a wrong line");
        }
        rest = (struct span){rest.data + line.size, rest.size - line.size};
    }
    bool noticed = found->quarantined || found->tail_cut;
    bool end_of_last = may_lose_tail && strcmp(target, last_name) == 0;
    if (found->last_index < LAST && !noticed && !end_of_last) {
        complain(target, "entries are missing in silence");
    }
    bool of_meta = strcmp(target, "meta.jsonl") == 0; /* a torn record has its own note */
    if (noticed != (found->note[0] != 0) && !of_meta) {
        complain(target, "nothing is said about it");
    }
    if (found->tail_cut && strcmp(target, last_name) != 0) {
        complain(target, "damage of a closed segment taken for a torn write");
    }
}

/* Opened once, it opens again the same, and remembers its quarantine. */
static void check_again(const char *target) {
    struct store_recovery first = rig.recovery;
    storerig_close(&rig);
    if (storerig_open(&rig) != STATUS_OK || rig.recovery.last_index != first.last_index ||
        rig.recovery.quarantined != first.quarantined || rig.recovery.tail_cut) {
        complain(target, "another picture at the second opening");
    }
}

struct tally {
    unsigned long harmless;
    unsigned long cut;
    unsigned long quarantined;
    unsigned long refused;
};

static void damage_once(const struct memfs_image *image, struct tally *tally) {
    char target[NAME_BYTES_MAX];
    memfs_load(image);
    do_damage(target);
    enum status status = storerig_open(&rig);
    if (status == STATUS_OK) {
        check_opened(target);
        tally->harmless += !rig.recovery.quarantined && !rig.recovery.tail_cut;
        tally->cut += rig.recovery.tail_cut;
        tally->quarantined += rig.recovery.quarantined;
        check_again(target);
    } else {
        bool known = status == STATUS_CORRUPT || status == STATUS_MISMATCH;
        if (!known || strstr(rig.error.text, "jsonl") == NULL) {
            complain(target, "refused without a good reason");
        }
        tally->refused++;
    }
    storerig_close(&rig);
}

int main(int argc, char **argv) {
    unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 10) : 10000;
    random_seed(&dice, argc > 2 ? strtoul(argv[2], NULL, 10) : 1);
    file_use_calls(&MEMFS_CALLS);
    struct tally tally = {0};
    for (int closed = 0; closed < 2; closed++) {
        struct memfs_image *image = make_directory(closed == 1);
        for (unsigned long i = 0; i < count / 2; i++) {
            damage_once(image, &tally);
        }
        memfs_image_free(image);
    }
    storerig_clear(&rig);
    logmaker_clear(&the_log);
    buffer_free(&the_snapshot);
    buffer_free(&older_meta);
    buffer_free(&older_segment);
    memfs_free();
    CHECK(memory_live_count() == 0);
    printf("storage damage: %lu harmless, %lu cut, %lu in quarantine, %lu refused: ok\n",
           tally.harmless, tally.cut, tally.quarantined, tally.refused);
    return 0;
}
