/* Sealing of lines that never are in memory as a whole; see snapshot_stream.h. */
#include "wire/snapshot_stream.h"

#include "base/assert.h"
#include "base/crc32c.h"
#include "wire/line.h"
#include "wire/snapshot.h"

enum status snapshot_stream_begin(struct snapshot_stream *stream, struct span head) {
    uint32_t crc = 0;
    for (struct span rest = head; rest.size > 0;) {
        const char *lf = memchr(rest.data, '\n', rest.size);
        size_t bytes = lf == NULL ? rest.size : (size_t)(lf - rest.data) + 1;
        struct span body;
        if (line_check((struct span){rest.data, bytes}, crc, &body, &crc) != STATUS_OK) {
            return STATUS_CORRUPT;
        }
        rest = (struct span){rest.data + bytes, rest.size - bytes};
    }
    *stream = (struct snapshot_stream){.crc = crc};
    buffer_append_span(&stream->out, head);
    stream->covered = stream->out.size;
    return STATUS_OK;
}

void snapshot_stream_open_line(struct snapshot_stream *stream) {
    ASSERT(!stream->in_line && stream->covered == stream->out.size);
    stream->in_line = true;
    buffer_append_text(&stream->out, "{\"state\":");
}

void snapshot_stream_close_line(struct snapshot_stream *stream) {
    ASSERT(stream->in_line && stream->out.start == 0);
    /* The checksum so far is the seed of what is left of the line. */
    stream->crc = line_seal(&stream->out, stream->covered, stream->crc);
    stream->covered = stream->out.size;
    stream->in_line = false;
    stream->state_lines++;
}

void snapshot_stream_end(struct snapshot_stream *stream) {
    ASSERT(!stream->in_line);
    uint64_t bytes_before = stream->bytes + stream->out.size;
    snapshot_write_end(&stream->out, stream->state_lines, bytes_before, stream->crc);
    stream->covered = stream->out.size;
}

struct span snapshot_stream_peek(const struct snapshot_stream *stream) {
    return buffer_span(&stream->out);
}

void snapshot_stream_taken(struct snapshot_stream *stream) {
    ASSERT(stream->out.start == 0 && stream->covered <= stream->out.size);
    stream->crc = crc32c(stream->crc, stream->out.bytes + stream->covered,
                         stream->out.size - stream->covered);
    stream->bytes += stream->out.size;
    stream->covered = 0;
    buffer_clear(&stream->out);
}

void snapshot_stream_clear(struct snapshot_stream *stream) {
    buffer_free(&stream->out);
    *stream = (struct snapshot_stream){0};
}
