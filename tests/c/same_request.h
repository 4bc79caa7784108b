/* Whether two readings of a line came to the same, field by field. */
#ifndef RAFTPICO_TESTS_SAME_REQUEST_H
#define RAFTPICO_TESTS_SAME_REQUEST_H

#include "wire/rpc.h"

static inline bool same_text(struct span a, struct span b) {
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static inline bool same_request(const struct rpc_request *a, const struct rpc_request *b) {
    return a->notification == b->notification && same_text(a->id, b->id) &&
           a->code == b->code && strcmp(a->data, b->data) == 0 && a->method == b->method &&
           a->kind == b->kind && same_text(a->input, b->input) &&
           same_text(a->session, b->session) && a->session_seq == b->session_seq &&
           a->index == b->index && a->min_index == b->min_index &&
           a->max_staleness_ms == b->max_staleness_ms && strcmp(a->address, b->address) == 0 &&
           a->min_election_timeout_ms == b->min_election_timeout_ms &&
           a->max_election_timeout_ms == b->max_election_timeout_ms && a->user == b->user;
}

#endif
