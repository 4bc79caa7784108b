/* Terms, votes and roles: elections (3.4, 3.6.1), pre-votes (9.6), stickiness (4.2.3).
 *
 * Invariant: a vote is counted, our own included, and told only when it is durable; the term
 * never goes back; within a term voted_for changes once, from nobody. */
#include "base/assert.h"
#include "raft/internal.h"

void election_restart_timer(struct raft *raft) {
    raft->election_ms = raft->now_ms + random_between(&raft->random, raft->min_timeout_ms,
                                                      raft->max_timeout_ms);
}

/* Whether our vote or our candidacy may still be needed: as long as the configuration that
 * leaves us out is not known to be committed, we may be the only one that has it, and then
 * nobody who lacks it can be elected against our longer log (4.2.2; M9). */
static bool has_part(const struct raft *raft) {
    const struct log_configuration *in_force = raft_in_force(raft);
    if (quorum_has_voter(&in_force->configuration, raft->id)) {
        return true;
    }
    return in_force->index > larger(raft->commit_index, raft->log.snapshot.index) &&
           quorum_has_voter(
               &log_configuration_at(&raft->log, in_force->index - 1)->configuration, raft->id);
}

/* A learner, an outsider and one whose log was damaged wait to be led (V15, M13). */
static bool may_campaign(const struct raft *raft) {
    return raft->id != 0 && !raft->quarantined && raft->now_ms >= raft->no_campaign_ms &&
           raft->term < NUMBER_MAX && !raft_log_is_full(raft) && has_part(raft);
}

/* --- roles --- */
/* What the leader has verified stays true to the end of its term: it may be heard again. */
static void forget_leader(struct raft *raft) {
    raft->leader = 0;
    raft->following.connected = false;
    raft->following.reply_due = false;
    raft->following.rejected = false;
}

static void enter_term(struct raft *raft, uint64_t term, uint64_t voted_for) {
    ASSERT(term > raft->term);
    raft->term = term;
    raft->voted_for = voted_for;
    raft->vote_changed = true;
    raft->quarantine_known = false;
    raft->leader = 0;
    raft->following = (struct following){.verified = raft->commit_index};
    outbox_clear(&raft->outbox); /* of an older term: nobody would listen */
}

void election_follow(struct raft *raft, uint64_t term, uint64_t leader) {
    if (term > raft->term) {
        enter_term(raft, term, 0);
    }
    if (raft->role == RAFT_LEADER) {
        raft->leading = (struct leading){0};
        raft->following = (struct following){.verified = raft->commit_index};
        election_restart_timer(raft);
    }
    raft->role = RAFT_FOLLOWER;
    raft->candidacy.count = 0;
    raft->leader = leader;
}

void election_heed(struct raft *raft, uint64_t term, uint64_t leader) {
    ASSERT(term >= raft->term && leader != 0);
    election_follow(raft, term, leader);
    raft->following.heard_ms = raft->now_ms;
    raft->following.connected = true;
    election_restart_timer(raft);
}

/* --- campaigns --- */
static void count_vote(struct raft *raft, uint64_t id) {
    for (uint32_t i = 0; i < raft->candidacy.count; i++) {
        if (raft->candidacy.granted[i] == id) {
            return;
        }
    }
    if (raft->candidacy.count < MEMBERS_MAX) {
        raft->candidacy.granted[raft->candidacy.count++] = id;
    }
}

static bool has_won(const struct raft *raft) {
    const struct raft_configuration *configuration = &raft_in_force(raft)->configuration;
    uint64_t values[MEMBERS_MAX] = {0};
    for (uint32_t i = 0; i < configuration->count; i++) {
        for (uint32_t j = 0; j < raft->candidacy.count; j++) {
            if (raft->candidacy.granted[j] == configuration->members[i].id) {
                values[i] = 1;
            }
        }
    }
    return quorum_reached(configuration, values) == 1;
}

static void ask_for_votes(struct raft *raft, bool pre, bool transfer) {
    const struct raft_configuration *configuration = &raft_in_force(raft)->configuration;
    for (uint32_t i = 0; i < configuration->count; i++) {
        uint64_t id = configuration->members[i].id;
        if (id != raft->id && quorum_has_voter(configuration, id)) {
            outbox_add(&raft->outbox, &(struct raft_message){.kind = RAFT_VOTE,
                                                             .from = raft->id,
                                                             .to = id,
                                                             .term = raft->term + (pre ? 1 : 0),
                                                             .pre = pre,
                                                             .transfer = transfer,
                                                             .last = log_last(&raft->log)});
        }
    }
}

/* Our own vote is counted by election_persisted(). */
static void campaign(struct raft *raft, bool transfer) {
    enter_term(raft, raft->term + 1, raft->id);
    raft->role = RAFT_CANDIDATE;
    raft->candidacy.count = 0;
    election_restart_timer(raft);
    ask_for_votes(raft, false, transfer);
}

/* Ask first whether a campaign could succeed, so that one who cannot be heard, or has no claim,
 * does not raise the term and unseat a leader (9.6; V12, V14). */
static void pre_campaign(struct raft *raft) {
    raft->role = RAFT_PRECANDIDATE;
    raft->candidacy.count = 0;
    election_restart_timer(raft);
    count_vote(raft, raft->id);
    ask_for_votes(raft, true, false);
}

static void advance(struct raft *raft) {
    if (raft->role == RAFT_PRECANDIDATE && has_won(raft)) {
        campaign(raft, false);
    }
    if (raft->role == RAFT_CANDIDATE && has_won(raft)) {
        raft->role = RAFT_LEADER;
        raft->leader = raft->id;
        raft->candidacy.count = 0;
        replication_lead(raft);
    }
}

/* A leader that no quorum answers stops heartbeating, so that those who still hear it can elect
 * another (6.2; V13, V14). */
static void check_quorum(struct raft *raft) {
    const struct raft_configuration *configuration = &raft_in_force(raft)->configuration;
    uint64_t heard[MEMBERS_MAX] = {0};
    for (uint32_t i = 0; i < configuration->count; i++) {
        uint64_t id = configuration->members[i].id;
        const struct progress *progress = replication_find(raft, id);
        heard[i] = progress != NULL ? progress->heard_ms : raft->now_ms;
    }
    if (raft->now_ms - quorum_reached(configuration, heard) >= raft->max_timeout_ms) {
        election_follow(raft, raft->term, 0);
    }
}

static bool own_vote_is_saved(const struct raft *raft) {
    return raft->saved_term == raft->term && raft->saved_vote == raft->id;
}

/* Who has not heard the leader in time forgets it: we may ourselves be asked by others whose
 * time ran out as well (V8), and who may not campaign does not wait for it for ever. */
void election_tick(struct raft *raft) {
    if (raft->role == RAFT_LEADER) {
        check_quorum(raft);
    } else if (raft->now_ms >= raft->election_ms) {
        forget_leader(raft);
        if (may_campaign(raft)) {
            pre_campaign(raft);
            advance(raft);
        } else {
            election_restart_timer(raft);
            raft->election_ms = larger(raft->election_ms, raft->no_campaign_ms);
        }
    }
}

void election_persisted(struct raft *raft, uint64_t term, uint64_t voted_for) {
    if (term > raft->saved_term || (term == raft->saved_term && raft->saved_vote == 0)) {
        raft->saved_term = term;
        raft->saved_vote = voted_for;
    }
    if (raft->role == RAFT_CANDIDATE && own_vote_is_saved(raft)) {
        count_vote(raft, raft->id);
        advance(raft);
    }
}

void election_stop(struct raft *raft) {
    raft->no_campaign_ms = raft->now_ms + raft->max_timeout_ms;
    if (raft->role != RAFT_FOLLOWER) {
        election_follow(raft, raft->term, 0);
    }
    raft->election_ms = larger(raft->election_ms, raft->no_campaign_ms);
}

/* A broken connection to the leader is most often a killed leader: be quick. Should it live,
 * the others refuse our pre-vote, or we hear from it again. */
void election_disconnected(struct raft *raft, uint64_t id) {
    if (raft->role != RAFT_FOLLOWER || raft->leader != id || id == 0) {
        return;
    }
    raft->following.connected = false;
    uint64_t soon =
        raft->now_ms + random_between(&raft->random, 0, 2 * raft_heartbeat_ms(raft));
    raft->election_ms = larger(smaller(raft->election_ms, soon), raft->no_campaign_ms);
}

/* --- being asked --- */
/* Who hears a leader keeps it: a server that was cut off or removed cannot unseat it (4.2.3).
 */
static bool has_live_leader(const struct raft *raft) {
    return raft->role == RAFT_LEADER ||
           (raft->leader != 0 && raft->following.connected &&
            raft->now_ms - raft->following.heard_ms < raft->min_timeout_ms);
}

/* Terms first, then indexes: the longer log of an older term is the poorer one (3.6.1, V1). */
static bool is_up_to_date(const struct raft *raft, struct raft_position last) {
    struct raft_position ours = log_last(&raft->log);
    return last.term > ours.term || (last.term == ours.term && last.index >= ours.index);
}

static void reply(struct raft *raft, const struct raft_message *message, bool granted) {
    bool asked_term = granted && message->pre;
    outbox_add(&raft->outbox,
               &(struct raft_message){.kind = RAFT_VOTE_REPLY,
                                      .from = raft->id,
                                      .to = message->from,
                                      .term = asked_term ? message->term : raft->term,
                                      .pre = message->pre,
                                      .granted = granted});
}

/* Changes nothing here, and above all no timer and no vote (V6, V9). A refusal tells our term:
 * an asker that is behind adopts it and is heard the next time (V7). */
static enum raft_result receive_pre_vote(struct raft *raft,
                                         const struct raft_message *message) {
    bool granted = message->term > raft->term && !has_live_leader(raft) && !raft->quarantined &&
                   is_up_to_date(raft, message->last);
    reply(raft, message, granted);
    return RAFT_OK;
}

enum raft_result election_receive_vote(struct raft *raft, const struct raft_message *message) {
    if (message->pre) {
        return receive_pre_vote(raft, message);
    }
    if (message->term < raft->term) {
        reply(raft, message, false);
        return RAFT_STALE;
    }
    if (!message->transfer && has_live_leader(raft)) {
        return RAFT_STALE;
    }
    if (message->term > raft->term) {
        election_follow(raft, message->term, 0);
    }
    /* Whether the configuration here has us as a voter, or the candidate at all, does not
     * matter: it may be older than the candidate's (4.1, V15). */
    bool granted = (raft->voted_for == 0 || raft->voted_for == message->from) &&
                   raft->leader == 0 && !raft->quarantined &&
                   is_up_to_date(raft, message->last);
    if (granted) {
        raft->vote_changed = raft->vote_changed || raft->voted_for == 0;
        raft->voted_for = message->from;
        election_restart_timer(raft);
    }
    reply(raft, message, granted);
    return RAFT_OK;
}

enum raft_result election_receive_reply(struct raft *raft, const struct raft_message *message) {
    uint64_t asked = raft->term + (message->pre ? 1 : 0);
    if (!quorum_has_voter(&raft_in_force(raft)->configuration, message->from)) {
        return RAFT_STALE; /* a stranger does not move our term */
    }
    if (message->granted && message->term > asked) {
        /* For a pre-vote our earlier life may have asked, in a term that was not durable. */
        return message->pre ? RAFT_STALE : RAFT_BAD_MESSAGE;
    }
    if (!message->granted && message->term > raft->term) {
        election_follow(raft, message->term, 0);
        return RAFT_OK;
    }
    enum raft_role role = message->pre ? RAFT_PRECANDIDATE : RAFT_CANDIDATE;
    bool asking = raft->role == role && (message->pre || own_vote_is_saved(raft));
    if (!message->granted || message->term != asked || !asking) {
        return RAFT_STALE;
    }
    count_vote(raft, message->from);
    advance(raft);
    return RAFT_OK;
}

/* The leader hands over: campaign at once, without a pre-vote that its followers would refuse
 * (3.10). */
enum raft_result election_receive_timeout_now(struct raft *raft,
                                              const struct raft_message *message) {
    if (message->term != raft->term || raft->role != RAFT_FOLLOWER ||
        raft->leader != message->from || !may_campaign(raft)) {
        return RAFT_STALE;
    }
    campaign(raft, true);
    return RAFT_OK;
}
