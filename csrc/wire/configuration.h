/* A cluster's configuration as JSON: who belongs to it, where they listen, how they time.
 *
 *   {"members":[{"id":1,"addr":"127.0.0.1:4000","voter":true,"before":true},...],"joint":true,
 *    "next_id":4,"timeouts":[300,2000]}
 *
 * This is the body of a CONFIGURATION entry and stands in a snapshot's header. */
#ifndef RAFTPICO_WIRE_CONFIGURATION_H
#define RAFTPICO_WIRE_CONFIGURATION_H

#include "base/buffer.h"
#include "base/limits.h"
#include "raft/raft.h"

struct cluster {
    struct raft_configuration raft;
    char addresses[MEMBERS_MAX][ADDRESS_BYTES_MAX]; /* of raft.members[i] */
    uint64_t next_id;                               /* never given to a member yet */
    uint32_t min_election_timeout_ms;
    uint32_t max_election_timeout_ms;
};

void configuration_write(struct buffer *json, const struct cluster *cluster);

/* Read a valid JSON object's text. STATUS_CORRUPT: not of this form. */
enum status configuration_read(struct span json, struct cluster *cluster) MUST_USE;

/* `["127.0.0.1:4000",...]`: voters and learners in joining order, those on their way out left
 * out. */
void configuration_write_addresses(struct buffer *json, const struct cluster *cluster);

/* The address of `id`, or NULL; the id at `address`, or 0. */
const char *configuration_address(const struct cluster *cluster, uint64_t id);
uint64_t configuration_id_at(const struct cluster *cluster, const char *address);

#endif
