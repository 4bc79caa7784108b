/* Reading and writing of configurations; see configuration.h. Trusts nothing: the text may come
 * from a peer. */
#include "wire/configuration.h"

#include <jansson.h>

#include "base/assert.h"
#include "wire/scan.h"

static json_t *member_json(const struct raft_member *member, const char *address) {
    return json_pack("{s:I, s:s, s:b, s:b}", "id", (json_int_t)member->id, "addr", address,
                     "voter", member->voter, "before", member->voter_before);
}

void configuration_write(struct buffer *json, const struct cluster *cluster) {
    json_t *members = json_array();
    for (uint32_t i = 0; i < cluster->raft.count; i++) {
        json_array_append_new(members,
                              member_json(&cluster->raft.members[i], cluster->addresses[i]));
    }
    json_t *root =
        json_pack("{s:o, s:b, s:I, s:[i, i]}", "members", members, "joint", cluster->raft.joint,
                  "next_id", (json_int_t)cluster->next_id, "timeouts",
                  (int)cluster->min_election_timeout_ms, (int)cluster->max_election_timeout_ms);
    ASSERT(root != NULL); /* addresses are UTF-8; a process without memory ends here */
    size_t bytes = json_dumpb(root, NULL, 0, JSON_COMPACT);
    ASSERT(bytes > 0);
    json_dumpb(root, buffer_reserve(json, bytes), bytes, JSON_COMPACT);
    buffer_extend(json, bytes);
    json_decref(root);
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

static bool read_u64(json_t *value, uint64_t low, uint64_t high, uint64_t *number) {
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return false;
    }
    *number = (uint64_t)json_integer_value(value);
    return *number >= low && *number <= high;
}

static bool read_flag(json_t *value, bool *flag) {
    *flag = json_is_true(value);
    return json_is_boolean(value);
}

static bool read_address(json_t *value, char *address) {
    size_t bytes = json_string_length(value); /* 0 where it is no string */
    if (bytes == 0 || bytes >= ADDRESS_BYTES_MAX) {
        return false;
    }
    memcpy(address, json_string_value(value), bytes + 1);
    return true;
}

static bool read_member(json_t *object, struct cluster *cluster) {
    if (cluster->raft.count == MEMBERS_MAX) {
        return false;
    }
    struct raft_member *member = &cluster->raft.members[cluster->raft.count];
    uint64_t id;
    if (!read_u64(json_object_get(object, "id"), 1, cluster->next_id - 1, &id) ||
        raft_configuration_find(&cluster->raft, id) != NULL ||
        !read_flag(json_object_get(object, "voter"), &member->voter) ||
        !read_flag(json_object_get(object, "before"), &member->voter_before) ||
        (member->voter_before && !cluster->raft.joint) ||
        !read_address(json_object_get(object, "addr"),
                      cluster->addresses[cluster->raft.count])) {
        return false;
    }
    member->id = id;
    cluster->raft.count++;
    return true;
}

static bool read_timeouts(json_t *array, struct cluster *cluster) {
    uint64_t low;
    uint64_t high;
    if (!read_u64(json_array_get(array, 0), ELECTION_TIMEOUT_MS_LEAST, ELECTION_TIMEOUT_MS_MOST,
                  &low) ||
        !read_u64(json_array_get(array, 1), low, ELECTION_TIMEOUT_MS_MOST, &high)) {
        return false;
    }
    cluster->min_election_timeout_ms = (uint32_t)low;
    cluster->max_election_timeout_ms = (uint32_t)high;
    return true;
}

static bool read_root(json_t *root, struct cluster *cluster) {
    json_t *members = json_object_get(root, "members");
    if (!read_flag(json_object_get(root, "joint"), &cluster->raft.joint) ||
        !read_u64(json_object_get(root, "next_id"), 2, NUMBER_MAX, &cluster->next_id) ||
        !read_timeouts(json_object_get(root, "timeouts"), cluster)) {
        return false;
    }
    bool any_voter = false;
    for (size_t i = 0; i < json_array_size(members); i++) {
        if (!read_member(json_array_get(members, i), cluster)) {
            return false;
        }
        any_voter = any_voter || cluster->raft.members[i].voter;
    }
    return any_voter;
}

enum status configuration_read(struct span json, struct cluster *cluster) {
    *cluster = (struct cluster){0};
    json_t *root = json_loadb(json.data, json.size, JSON_REJECT_DUPLICATES, NULL);
    bool sound = root != NULL && read_root(root, cluster);
    json_decref(root);
    return sound ? STATUS_OK : STATUS_CORRUPT;
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
