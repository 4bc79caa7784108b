/* The jobs of the disk thread, without the thread: in a directory and in memory they must give
 * the same, and a snapshot taken by one is a snapshot to the other. */
#include "base/memory.h"
#include "check.h"
#include "server/disk_jobs.h"
#include "server/reader.h"

#define ENTRIES 5u
#define CONFIGURATION                                                                          \
    "{\"members\":[{\"id\":1,\"addr\":\"127.0.0.1:4000\",\"voter\":true,\"before\":false}],"   \
    "\"joint\":false,\"next_id\":2,\"timeouts\":[300,2000]}"

static uint32_t chain_crc; /* of the last entry */

static struct job *done(struct disk_jobs *jobs, struct job *job, enum status expected) {
    disk_jobs_do(jobs, job);
    if (job->status != expected) {
        fprintf(stderr, "kind %d: %s: %s\n", (int)job->kind, status_name(job->status),
                job->error.text);
    }
    CHECK(job->status == expected && job->error.status == expected);
    return job;
}

static enum status ignore_line(void *context, struct span line) {
    (void)context;
    (void)line;
    return STATUS_OK;
}

static enum status ignore_entry(void *context, uint64_t index, uint64_t term, uint32_t crc,
                                struct span line) {
    (void)index;
    (void)term;
    (void)crc;
    return ignore_line(context, line);
}

static struct backend open_directory(const char *folder, const char *name) {
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    struct store_options options = {.path = path, .address = "127.0.0.1:4000", .sync = true};
    struct store_visitor visitor = {NULL, ignore_line, ignore_entry};
    struct store_recovery recovery;
    struct store *store = NULL;
    struct error error = {0};
    CHECK(store_open(&options, &visitor, &recovery, &store, &error) == STATUS_OK);
    return backend_store(store);
}

static void write_entries(struct disk_jobs *jobs) {
    struct job *job = job_new(JOB_WRITE);
    job->save_meta = true;
    snprintf(job->meta.address, sizeof(job->meta.address), "127.0.0.1:4000");
    job->meta.term = 3;
    job->first = 1;
    job->last = ENTRIES;
    job->offsets = memory_must_grow(NULL, ENTRIES * sizeof(uint32_t));
    chain_crc = 0;
    for (uint64_t index = 1; index <= ENTRIES; index++) {
        job->offsets[index - 1] = (uint32_t)buffer_count(&job->data);
        struct entry entry = {.index = index, .term = 3, .time_ms = index, .kind = ENTRY_NOOP};
        chain_crc = entry_write(&job->data, &entry, chain_crc);
    }
    done(jobs, job, STATUS_OK);
    job_free(job);
}

static void do_simple(struct disk_jobs *jobs, enum job_kind kind, enum status expected) {
    job_free(done(jobs, job_new(kind), expected));
}

/* Write the lines of `pieces` where the job has made room for them, a part of a line at a time
 * and with as little in memory as the writer likes. */
static void write_state(struct disk_jobs *jobs, struct span header_line, struct span pieces) {
    struct writer writer;
    struct error error = {0};
    writing_start(jobs->writing, header_line, &writer);
    while (pieces.size > 0) {
        size_t size =
            (size_t)((const char *)memchr(pieces.data, '\n', pieces.size) - pieces.data);
        snapshot_stream_open_line(&writer.stream);
        for (size_t at = 0; at < size; at += 70000) {
            size_t part = size - at < 70000 ? size - at : 70000;
            buffer_append(&writer.stream.out, pieces.data + at, part);
            CHECK(!writer_is_full(&writer) || writer_flush(&writer, &error) == STATUS_OK);
        }
        snapshot_stream_close_line(&writer.stream);
        pieces = (struct span){pieces.data + size + 1, pieces.size - size - 1};
    }
    CHECK(writer_end(&writer, &error) == STATUS_OK);
    CHECK(writer.stream.out.capacity < 2 * WRITER_BUFFER_BYTES + 100000);
    writer_clear(&writer);
    writing_finish(jobs->writing, STATUS_OK, "");
    CHECK(writing_poll(jobs->writing, 1, &error) && error.status == STATUS_OK);
}

static uint64_t check_all(struct disk_jobs *jobs) {
    uint64_t total = 0;
    for (bool whole = false; !whole;) {
        struct job *job = done(jobs, job_new(JOB_SNAPSHOT_CHECK), STATUS_OK);
        CHECK(job->total - total <= SNAPSHOT_CHECK_BYTES);
        whole = job->whole;
        total = job->total;
        job_free(job);
    }
    return total;
}

/* What the next snapshot names and holds. */
static const char *configuration = CONFIGURATION;
static const char *session; /* NULL: none */

static struct job *take_job(void) {
    struct job *job = job_new(JOB_SNAPSHOT_TAKE);
    job->header.index = ENTRIES;
    job->header.term = 3;
    job->header.chain_crc = chain_crc;
    buffer_append_text(&job->configuration, configuration);
    job->header.configuration = buffer_span(&job->configuration);
    return job;
}

static uint64_t take(struct disk_jobs *jobs, struct span pieces, enum status expected) {
    struct job *job = take_job();
    struct buffer line;
    buffer_init(&line);
    uint32_t seed = snapshot_write_header(&line, &job->header);
    if (session != NULL) {
        snapshot_write_session(&line, (struct span){session, strlen(session)}, seed);
    }
    do_simple(jobs, JOB_SNAPSHOT_BEGIN, STATUS_OK);
    write_state(jobs, buffer_span(&line), pieces);
    uint64_t total = check_all(jobs);
    job_free(done(jobs, job, expected));
    buffer_free(&line);
    return total;
}

/* A process that writes something else, or only half of it, leaves no snapshot. */
static void take_rubbish(struct disk_jobs *jobs) {
    struct error error = {0};
    do_simple(jobs, JOB_SNAPSHOT_BEGIN, STATUS_OK);
    CHECK(file_write(&jobs->writing->file, 0, SPAN("{}\n"), &error) == STATUS_OK);
    do_simple(jobs, JOB_SNAPSHOT_CHECK, STATUS_CORRUPT);
    struct job *job = take_job();
    struct buffer line;
    buffer_init(&line);
    snapshot_write_header(&line, &job->header);
    do_simple(jobs, JOB_SNAPSHOT_BEGIN, STATUS_OK);
    CHECK(file_write(&jobs->writing->file, 0, buffer_span(&line), &error) == STATUS_OK);
    check_all(jobs);
    job_free(done(jobs, job, STATUS_CORRUPT));
    buffer_free(&line);
    do_simple(jobs, JOB_SNAPSHOT_BEGIN, STATUS_OK);
    do_simple(jobs, JOB_SNAPSHOT_DROP, STATUS_OK);
}

/* Chunk by chunk from one to the other, as between members. */
static void carry(struct disk_jobs *from, struct disk_jobs *to, uint64_t total) {
    uint64_t offset = 0;
    do {
        struct job *read = job_new(JOB_SNAPSHOT_READ);
        read->snapshot.index = ENTRIES;
        read->offset = offset;
        done(from, read, STATUS_OK);
        CHECK(read->total == total && buffer_count(&read->data) > 0);
        struct job *receive = job_new(JOB_SNAPSHOT_RECEIVE);
        receive->offset = offset;
        buffer_append_span(&receive->data, buffer_span(&read->data));
        offset += buffer_count(&read->data);
        job_free(done(to, receive, STATUS_OK));
        job_free(read);
    } while (offset < total);
}

static void install(struct disk_jobs *jobs, uint64_t index, uint64_t total,
                    enum status expected) {
    struct job *job = job_new(JOB_SNAPSHOT_INSTALL);
    job->snapshot.index = index;
    job->snapshot.term = 3;
    job->reset_log = true;
    done(jobs, job, expected);
    if (expected == STATUS_OK) {
        CHECK(job->snapshot.index == ENTRIES && job->snapshot.term == 3);
        CHECK(job->chain_crc == chain_crc && job->total == total);
        CHECK(span_equal(buffer_span(&job->configuration), SPAN(CONFIGURATION)));
        CHECK(span_equal(job->header.configuration, SPAN(CONFIGURATION)));
    }
    job_free(job);
}

static void load(struct disk_jobs *jobs, struct span pieces) {
    struct job *job = job_new(JOB_SNAPSHOT_LOAD);
    job->snapshot.index = ENTRIES;
    done(jobs, job, STATUS_OK);
    struct reader *reader = reader_of(job->cargo);
    struct error error = {0};
    struct span json;
    bool ended = false;
    while (pieces.size > 0) {
        CHECK(reader_next(reader, &json, &ended, &error) == STATUS_OK && !ended);
        CHECK(json.size < pieces.size && memcmp(json.data, pieces.data, json.size) == 0);
        CHECK(pieces.data[json.size] == '\n');
        pieces = (struct span){pieces.data + json.size + 1, pieces.size - json.size - 1};
    }
    CHECK(reader_next(reader, &json, &ended, &error) == STATUS_OK && ended);
    job_free(job); /* and with it the reader */
    job = job_new(JOB_SNAPSHOT_LOAD);
    job->snapshot.index = ENTRIES - 1;
    job_free(done(jobs, job, STATUS_NOT_FOUND));
}

/* What does not fit together leaves nothing behind that could be taken for a snapshot. */
static void receive_rubbish(struct disk_jobs *jobs) {
    struct job *job = job_new(JOB_SNAPSHOT_RECEIVE);
    job->offset = 10;
    job_free(done(jobs, job, STATUS_INVALID));
    job = job_new(JOB_SNAPSHOT_RECEIVE);
    buffer_append_text(&job->data, "{\"snapshot\":1}\n");
    job_free(done(jobs, job, STATUS_CORRUPT));
    job = job_new(JOB_SNAPSHOT_RECEIVE);
    job->offset = 15;
    job_free(done(jobs, job, STATUS_INVALID));
    install(jobs, ENTRIES, 0, STATUS_CORRUPT);
    job = job_new(JOB_SNAPSHOT_RECEIVE);
    buffer_append_text(&job->data, "{\"snapshot\":");
    job_free(done(jobs, job, STATUS_OK));
    install(jobs, ENTRIES, 0, STATUS_CORRUPT);
}

static void pieces_make(struct buffer *pieces, size_t piece_bytes, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        buffer_append_char(pieces, '"');
        memset(buffer_reserve(pieces, piece_bytes), 'a' + (int)(i % 26), piece_bytes);
        buffer_extend(pieces, piece_bytes);
        buffer_append_text(pieces, "\"\n");
    }
}

/* Sealed and whole, but no node could start from it. */
static void refuse_unusable(struct backend from, struct backend to) {
    static const char *const NONE[] = {"{}", "{\"members\":7}",
                                       "{\"members\":[],\"joint\":false}"};
    static const char *const SESSIONS[] = {"7", "[\"a\",0,5,4,0,1]", "[\"a\",1,5,6,0,1]"};
    struct disk_jobs sender, receiver;
    struct writing sending, receiving;
    struct error error = {0};
    CHECK(writing_init(&sending, 0, &error) == STATUS_OK);
    CHECK(writing_init(&receiving, 0, &error) == STATUS_OK);
    disk_jobs_init(&sender, from, &sending);
    disk_jobs_init(&receiver, to, &receiving);
    write_entries(&sender);
    for (size_t i = 0; i < sizeof(NONE) / sizeof(NONE[0]); i++) {
        configuration = NONE[i];
        carry(&sender, &receiver, take(&sender, SPAN("1\n"), STATUS_OK));
        install(&receiver, ENTRIES, 0, STATUS_CORRUPT);
    }
    configuration = CONFIGURATION;
    for (size_t i = 0; i < sizeof(SESSIONS) / sizeof(SESSIONS[0]); i++) {
        session = SESSIONS[i];
        carry(&sender, &receiver, take(&sender, SPAN("1\n"), STATUS_OK));
        install(&receiver, ENTRIES, 0, STATUS_CORRUPT);
    }
    struct job *job = job_new(JOB_SNAPSHOT_LOAD);
    job->snapshot.index = ENTRIES;
    job_free(done(&receiver, job, STATUS_NOT_FOUND));
    session = "[\"a\",1,5,5,0,1]";
    uint64_t total = take(&sender, SPAN("1\n"), STATUS_OK);
    carry(&sender, &receiver, total);
    install(&receiver, ENTRIES, total, STATUS_OK);
    load(&receiver, SPAN("1\n"));
    session = NULL;
    disk_jobs_clear(&sender);
    disk_jobs_clear(&receiver);
    writing_clear(&sending);
    writing_clear(&receiving);
}

static void test_pair(struct backend from, struct backend to, size_t piece_bytes,
                      unsigned count) {
    struct disk_jobs sender, receiver;
    struct writing sending, receiving;
    struct error error = {0};
    struct buffer pieces;
    buffer_init(&pieces);
    pieces_make(&pieces, piece_bytes, count);
    CHECK(writing_init(&sending, 0, &error) == STATUS_OK);
    CHECK(writing_init(&receiving, 0, &error) == STATUS_OK);
    disk_jobs_init(&sender, from, &sending);
    disk_jobs_init(&receiver, to, &receiving);
    write_entries(&sender);
    take_rubbish(&sender);
    uint64_t total = take(&sender, buffer_span(&pieces), STATUS_OK);
    load(&sender, buffer_span(&pieces));
    receive_rubbish(&receiver);
    carry(&sender, &receiver, total);
    install(&receiver, ENTRIES - 1, 0, STATUS_CORRUPT); /* not the one that was announced */
    carry(&sender, &receiver, total);
    install(&receiver, ENTRIES, total, STATUS_OK);
    load(&receiver, buffer_span(&pieces));
    carry(&receiver, &receiver, total);
    install(&receiver, ENTRIES, total, STATUS_OK); /* the same once more */
    load(&receiver, buffer_span(&pieces));
    writing_clear(&sending);
    writing_clear(&receiving);
    disk_jobs_clear(&sender);
    disk_jobs_clear(&receiver);
    buffer_free(&pieces);
}

int main(int count, char **arguments) {
    CHECK(count > 1);
    const char *folder = arguments[1];
    test_pair(backend_memory(), backend_memory(), 10, 0);
    test_pair(backend_memory(), backend_memory(), 1000, 3000);
    test_pair(open_directory(folder, "a"), backend_memory(), 3000000, 2);
    test_pair(backend_memory(), open_directory(folder, "b"), 100, 20000);
    test_pair(open_directory(folder, "c"), open_directory(folder, "d"), 1000, 3);
    refuse_unusable(backend_memory(), backend_memory());
    refuse_unusable(backend_memory(), open_directory(folder, "e"));
    CHECK(memory_live_count() == 0);
    printf("ok\n");
    return 0;
}
