/* Requests by their form; see rpc_form.h.
 *
 * Whatever does not fit, down to a value that would be refused, is left to rpc_read: here is no
 * error of its own. */
#include "wire/rpc_form.h"

#include "base/assert.h"
#include "wire/rpc_inner.h"
#include "wire/scan.h"

#ifndef FORM_LEARN_EVERY
#define FORM_LEARN_EVERY 8u /* misses: requests that never repeat cost next to nothing */
#endif

/* --- a line that fits ------------------------------------------------------------------------
 */

static bool pass_value(struct scanner *scanner, unsigned depth, struct span *value) {
    const char *start = scanner->at;
    bool valid = scanner_value(scanner, depth);
    *value = (struct span){start, (size_t)(scanner->at - start)};
    return valid;
}

static bool pass_id(struct scanner *scanner, struct rpc_request *request) {
    bool number_or_text =
        scanner->at < scanner->end && (*scanner->at == '"' || *scanner->at == '-' ||
                                       (unsigned char)(*scanner->at - '0') <= 9);
    return number_or_text && pass_value(scanner, 1, &request->id) &&
           request->id.size <= ID_BYTES_MAX;
}

static bool pass_session(struct scanner *scanner, struct rpc_request *request) {
    struct scanner_text text;
    bool plain = scanner->at < scanner->end && *scanner->at == '"' &&
                 scanner_string(scanner, &text) && !text.escaped && text.raw.size > 0 &&
                 text.raw.size <= SESSION_BYTES_MAX;
    if (plain) {
        request->session = text.raw;
    }
    return plain;
}

static bool pass_number(struct scanner *scanner, uint64_t least, uint64_t *number) {
    struct span value;
    return pass_value(scanner, 2, &value) && scan_u64(value, NUMBER_MAX, number) &&
           *number >= least;
}

static bool pass_hole(enum rpc_hole hole, struct scanner *scanner,
                      struct rpc_request *request) {
    switch (hole) {
    case RPC_HOLE_ID:
        return pass_id(scanner, request);
    case RPC_HOLE_INPUT:
        return pass_value(scanner, 2, &request->input);
    case RPC_HOLE_SESSION:
        return pass_session(scanner, request);
    case RPC_HOLE_SEQ:
        return pass_number(scanner, 1, &request->session_seq);
    case RPC_HOLE_MIN_INDEX:
        return pass_number(scanner, 0, &request->min_index);
    }
    return false;
}

static bool fits(const struct rpc_form *form, struct span line, struct rpc_request *request) {
    struct scanner scanner = scanner_of(line);
    const char *text = form->text;
    for (unsigned i = 0; i <= form->holes; i++) {
        size_t bytes = form->piece[i];
        if ((size_t)(scanner.end - scanner.at) < bytes ||
            memcmp(scanner.at, text, bytes) != 0) {
            return false;
        }
        scanner.at += bytes;
        text += bytes;
        if (i < form->holes && !pass_hole(form->hole[i], &scanner, request)) {
            return false;
        }
    }
    return scanner.at == scanner.end;
}

static bool read_like(const struct rpc_form *form, struct span line,
                      struct rpc_request *request) {
    if (form->holes == 0) {
        return false;
    }
    rpc_request_init(request); /* also after a form that fitted half-way */
    if (!fits(form, line, request)) {
        return false;
    }
    request->method = RPC_APPLY;
    request->notification = form->notification;
    request->kind = form->kind;
    request->index = form->index;
    request->max_staleness_ms = form->max_staleness_ms;
    return true;
}

/* --- a line to learn from --------------------------------------------------------------------
 */

/* The values that vary, in their order in the line. */
struct varying {
    unsigned count;
    enum rpc_hole hole[RPC_FORM_HOLES_MAX];
    struct span value[RPC_FORM_HOLES_MAX];
};

static void varying_add(struct varying *varying, enum rpc_hole hole, struct span value) {
    if (value.data == NULL) {
        return;
    }
    ASSERT(varying->count < RPC_FORM_HOLES_MAX);
    unsigned at = varying->count++;
    for (; at > 0 && varying->value[at - 1].data > value.data; at--) {
        varying->value[at] = varying->value[at - 1];
        varying->hole[at] = varying->hole[at - 1];
    }
    varying->value[at] = value;
    varying->hole[at] = hole;
}

static struct varying find_varying(const struct rpc_envelope *envelope) {
    struct varying varying = {.count = 0};
    varying_add(&varying, RPC_HOLE_ID, envelope->id);
    varying_add(&varying, RPC_HOLE_INPUT, envelope->params.named[RPC_PARAM_INPUT]);
    varying_add(&varying, RPC_HOLE_SESSION, envelope->params.named[RPC_PARAM_SESSION]);
    varying_add(&varying, RPC_HOLE_SEQ, envelope->params.named[RPC_PARAM_SEQ]);
    varying_add(&varying, RPC_HOLE_MIN_INDEX, envelope->params.named[RPC_PARAM_MIN_INDEX]);
    return varying;
}

static void add_piece(struct rpc_form *form, unsigned piece, size_t *used, const char *from,
                      const char *to) {
    form->piece[piece] = (size_t)(to - from);
    memcpy(form->text + *used, from, form->piece[piece]);
    *used += form->piece[piece];
}

static void learn(struct rpc_form *form, struct span line, const struct rpc_request *request,
                  const struct rpc_envelope *envelope) {
    struct varying varying = find_varying(envelope);
    size_t text_bytes = line.size;
    for (unsigned i = 0; i < varying.count; i++) {
        text_bytes -= varying.value[i].size;
    }
    if (text_bytes > sizeof(form->text)) {
        return;
    }
    form->holes = varying.count;
    form->notification = request->notification;
    form->kind = request->kind;
    form->index = request->index;
    form->max_staleness_ms = request->max_staleness_ms;
    const char *from = line.data;
    size_t used = 0;
    for (unsigned i = 0; i < varying.count; i++) {
        form->hole[i] = varying.hole[i];
        add_piece(form, i, &used, from, varying.value[i].data);
        from = varying.value[i].data + varying.value[i].size;
    }
    add_piece(form, varying.count, &used, from, line.data + line.size);
}

/* --- the whole -------------------------------------------------------------------------------
 */

static bool read_by_form(struct rpc_forms *forms, struct span line,
                         struct rpc_request *request) {
    for (unsigned i = 0; i < RPC_FORMS; i++) {
        unsigned at = (forms->latest + i) % RPC_FORMS;
        if (read_like(&forms->forms[at], line, request)) {
            forms->latest = at;
            return true;
        }
    }
    return false;
}

enum rpc_shape rpc_forms_read(struct rpc_forms *forms, struct span line,
                              struct rpc_request *request, struct span *batch) {
    bool may_fit = line.size <= RPC_FORM_LINE_BYTES_MAX;
    if (may_fit && read_by_form(forms, line, request)) {
        return RPC_SINGLE;
    }
    struct rpc_envelope envelope;
    enum rpc_shape shape = rpc_read_envelope(line, &envelope, request, batch);
    if (may_fit && shape == RPC_SINGLE && request->code == RPC_OK &&
        request->method == RPC_APPLY && forms->misses++ % FORM_LEARN_EVERY == 0) {
        learn(&forms->forms[forms->next], line, request, &envelope);
        forms->next = (forms->next + 1) % RPC_FORMS;
    }
    return shape;
}
