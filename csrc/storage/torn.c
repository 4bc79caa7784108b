/* Telling a torn write from damage; the rule stands in torn.h. */
#include "storage/torn.h"

#include "storage/layout.h"
#include "wire/line.h"

#define SEAL_PATTERN ",\"crc32c\":\"........\"}" /* a dot: any character */
#define SEAL_PATTERN_BYTES (sizeof(SEAL_PATTERN) - 1)
#define SEAL_MATCHES_MIN                                                                       \
    9u /* of its 13 fixed characters: a seal, even with a few bytes wrong */

_Static_assert(SEAL_PATTERN_BYTES == LINE_SEAL_BYTES - 1, "the seal without its LF");

static bool holds_only(struct span text, char a, char b) {
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] != a && text.data[i] != b) {
            return false;
        }
    }
    return true;
}

static bool holds_control(struct span text) {
    for (size_t i = 0; i < text.size; i++) {
        if ((unsigned char)text.data[i] < 0x20) {
            return true;
        }
    }
    return false;
}

static bool ends_sealed(struct span text) {
    if (text.size < SEAL_PATTERN_BYTES) {
        return false;
    }
    const char *at = text.data + text.size - SEAL_PATTERN_BYTES;
    unsigned matches = 0;
    for (size_t i = 0; i < SEAL_PATTERN_BYTES; i++) {
        matches += SEAL_PATTERN[i] != '.' && SEAL_PATTERN[i] == at[i];
    }
    return matches >= SEAL_MATCHES_MIN;
}

static bool begins_as_expected(struct span text, struct span expect) {
    size_t size = text.size < expect.size ? text.size : expect.size;
    return memcmp(text.data, expect.data, size) == 0;
}

/* A line whose end is missing. Sealed with one byte more behind it is how a whole line looks
 * whose own LF was damaged. */
static bool is_half_line(struct span text, struct span expect) {
    struct span shorter = {text.data, text.size - 1};
    return begins_as_expected(text, expect) && !holds_control(text) && !ends_sealed(text) &&
           !ends_sealed(shorter);
}

/* A hole: line feeds from the write's beginning or a sector's boundary up to a sector's end. */
static bool is_hole(const struct torn_tail *tail, size_t at) {
    uint64_t begin = tail->offset + at;
    if (at > 0 && begin % SECTOR_BYTES != 0) {
        return false;
    }
    size_t size = SECTOR_BYTES - (size_t)(begin % SECTOR_BYTES);
    if (size > tail->text.size - at) {
        return false; /* the text ends sooner, with something that is no LF */
    }
    return holds_only((struct span){tail->text.data + at, size}, '\n', '\n');
}

static enum torn_verdict judge_last_line(const struct torn_tail *tail) {
    bool at_end = tail->offset + tail->text.size == tail->file_bytes;
    if (at_end) {
        return TORN_WRITE;
    }
    /* A file that was trimmed has no filling: what ends this line is its own LF. */
    bool filled = tail->file_bytes % BLOCK_BYTES == 0;
    return filled && is_half_line(tail->text, tail->expect) ? TORN_WRITE : TORN_DAMAGE;
}

enum torn_verdict torn_judge(const struct torn_tail *tail) {
    struct span text = tail->text;
    if (text.size == 0) {
        return TORN_NOTHING;
    }
    if (text.size > UNSYNCED_BYTES_MAX) {
        return TORN_DAMAGE;
    }
    /* A segment gets its name when its filling is durable: NULs at its very beginning are
     * damage. */
    if (holds_only(text, '\n', 0)) {
        return tail->offset > 0 || text.data[0] == '\n' ? TORN_NOTHING : TORN_DAMAGE;
    }
    const char *lf = memchr(text.data, '\n', text.size);
    if (lf == NULL) {
        return judge_last_line(tail);
    }
    size_t first_line = (size_t)(lf - text.data);
    if (holds_control((struct span){text.data, first_line}) || !is_hole(tail, first_line)) {
        return TORN_DAMAGE;
    }
    return begins_as_expected((struct span){text.data, first_line}, tail->expect) ? TORN_WRITE
                                                                                  : TORN_DAMAGE;
}
