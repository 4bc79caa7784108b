/* Reading and writing of configurations; see configuration.h. Trusts nothing: the text may come
 * from a peer. */
#include "wire/configuration.h"

#include <stdio.h>

#include "wire/scan.h"

static void write_member(struct buffer *json, const struct raft_member *member,
                         const char *address) {
    buffer_append_text(json, "{\"id\":");
    buffer_append_u64(json, member->id);
    buffer_append_text(json, ",\"addr\":");
    scan_append_string(json, (struct span){address, strlen(address)});
    buffer_append_text(json, member->voter ? ",\"voter\":true" : ",\"voter\":false");
    buffer_append_text(json, member->voter_before ? ",\"before\":true}" : ",\"before\":false}");
}

void configuration_write(struct buffer *json, const struct cluster *cluster) {
    buffer_append_text(json, "{\"members\":[");
    for (uint32_t i = 0; i < cluster->raft.count; i++) {
        if (i > 0) {
            buffer_append_char(json, ',');
        }
        write_member(json, &cluster->raft.members[i], cluster->addresses[i]);
    }
    buffer_append_text(json, cluster->raft.joint ? "],\"joint\":true" : "],\"joint\":false");
    buffer_append_text(json, ",\"next_id\":");
    buffer_append_u64(json, cluster->next_id);
    buffer_append_text(json, ",\"timeouts\":[");
    buffer_append_u64(json, cluster->min_election_timeout_ms);
    buffer_append_char(json, ',');
    buffer_append_u64(json, cluster->max_election_timeout_ms);
    buffer_append_text(json, "]}");
}

void configuration_write_addresses(struct buffer *json, const struct cluster *cluster) {
    buffer_append_char(json, '[');
    bool first = true;
    for (uint32_t i = 0; i < cluster->raft.count; i++) {
        const struct raft_member *member = &cluster->raft.members[i];
        if (cluster->raft.joint && member->voter_before && !member->voter) {
            continue;
        }
        if (!first) {
            buffer_append_char(json, ',');
        }
        first = false;
        scan_append_string(json,
                           (struct span){cluster->addresses[i], strlen(cluster->addresses[i])});
    }
    buffer_append_char(json, ']');
}

static bool read_u64(struct span object, const char *key, uint64_t max, uint64_t *value) {
    struct span number;
    return scan_find(object, key, &number) && scan_u64(number, max, value);
}

static bool read_bool(struct span object, const char *key, bool *value) {
    struct span found;
    if (!scan_find(object, key, &found)) {
        return false;
    }
    *value = scan_kind(found) == SCAN_TRUE;
    return *value || scan_kind(found) == SCAN_FALSE;
}

static bool read_address(struct span object, char *address) {
    struct span found;
    if (!scan_find(object, "addr", &found) || scan_kind(found) != SCAN_STRING) {
        return false;
    }
    struct buffer text;
    buffer_init(&text);
    scan_unescape(found, &text);
    bool fits = buffer_count(&text) > 0 && buffer_count(&text) < ADDRESS_BYTES_MAX;
    if (fits) {
        memcpy(address, buffer_peek(&text), buffer_count(&text));
        address[buffer_count(&text)] = '\0';
    }
    buffer_free(&text);
    return fits;
}

static bool read_member(struct span object, struct cluster *cluster) {
    if (cluster->raft.count == MEMBERS_MAX || scan_kind(object) != SCAN_OBJECT) {
        return false;
    }
    struct raft_member *member = &cluster->raft.members[cluster->raft.count];
    if (!read_u64(object, "id", NUMBER_MAX, &member->id) || member->id == 0 ||
        raft_configuration_find(&cluster->raft, member->id) != NULL ||
        !read_bool(object, "voter", &member->voter) ||
        !read_bool(object, "before", &member->voter_before) ||
        !read_address(object, cluster->addresses[cluster->raft.count])) {
        return false;
    }
    cluster->raft.count++;
    return true;
}

static bool read_timeouts(struct span json, struct cluster *cluster) {
    struct span array;
    struct span number;
    uint64_t values[2];
    size_t at = 0;
    if (!scan_find(json, "timeouts", &array) || scan_kind(array) != SCAN_ARRAY) {
        return false;
    }
    for (int i = 0; i < 2; i++) {
        if (!scan_next_element(array, &at, &number) ||
            !scan_u64(number, ELECTION_TIMEOUT_MS_MOST, &values[i]) ||
            values[i] < ELECTION_TIMEOUT_MS_LEAST) {
            return false;
        }
    }
    cluster->min_election_timeout_ms = (uint32_t)values[0];
    cluster->max_election_timeout_ms = (uint32_t)values[1];
    return values[0] <= values[1];
}

enum status configuration_read(struct span json, struct cluster *cluster) {
    *cluster = (struct cluster){0};
    struct span members;
    if (scan_kind(json) != SCAN_OBJECT || !scan_find(json, "members", &members) ||
        scan_kind(members) != SCAN_ARRAY || !read_bool(json, "joint", &cluster->raft.joint) ||
        !read_u64(json, "next_id", NUMBER_MAX, &cluster->next_id) ||
        !read_timeouts(json, cluster)) {
        return STATUS_CORRUPT;
    }
    struct span element;
    size_t at = 0;
    bool any_voter = false;
    while (scan_next_element(members, &at, &element)) {
        if (!read_member(element, cluster)) {
            return STATUS_CORRUPT;
        }
        const struct raft_member *last = &cluster->raft.members[cluster->raft.count - 1];
        any_voter = any_voter || last->voter;
        if (last->id >= cluster->next_id || (last->voter_before && !cluster->raft.joint)) {
            return STATUS_CORRUPT;
        }
    }
    return any_voter ? STATUS_OK : STATUS_CORRUPT;
}

const char *configuration_address(const struct cluster *cluster, uint64_t id) {
    for (uint32_t i = 0; i < cluster->raft.count; i++) {
        if (cluster->raft.members[i].id == id) {
            return cluster->addresses[i];
        }
    }
    return NULL;
}

uint64_t configuration_id_at(const struct cluster *cluster, const char *address) {
    for (uint32_t i = 0; i < cluster->raft.count; i++) {
        if (strcmp(cluster->addresses[i], address) == 0) {
            return cluster->raft.members[i].id;
        }
    }
    return 0;
}
