/* Requests by their form; see rpc_form.h.
 *
 * Whatever does not fit, down to a value that would be refused, is left to rpc_read: here is no
 * error of its own. */
#include "wire/rpc_form.h"

#include "base/assert.h"
#include "wire/rpc_inner.h"
#include "wire/scan.h"

STATIC_ASSERT(RPC_FORM_LINE_BYTES_MAX <= ID_BYTES_MAX, "no id in a line by a form is too long");

/* Of a line that fits no form: scanned once in vain, not RPC_FORMS times. */
#define LATE_BYTES 256u
#define USE_MAX 16u /* so often a form that lines fit is kept from making way */
#ifndef FORM_LEARN_EVERY
#define FORM_LEARN_EVERY 8u /* misses: requests that never repeat cost next to nothing */
#endif

/* --- a line that fits ------------------------------------------------------------------------
 */

static bool pass_id(struct scanner *scanner, struct rpc_request *request) {
    bool number_or_text =
        scanner->at < scanner->end && (*scanner->at == '"' || *scanner->at == '-' ||
                                       (unsigned char)(*scanner->at - '0') <= 9);
    return number_or_text && rpc_pass_value(scanner, 1, &request->id);
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
    return rpc_pass_value(scanner, 2, &value) && scan_u64(value, NUMBER_MAX, number) &&
           *number >= least;
}

static bool pass_hole(enum rpc_hole hole, struct scanner *scanner,
                      struct rpc_request *request) {
    switch (hole) {
    case RPC_HOLE_ID:
        return pass_id(scanner, request);
    case RPC_HOLE_INPUT:
        return rpc_pass_value(scanner, 2, &request->input);
    case RPC_HOLE_SESSION:
        return pass_session(scanner, request);
    case RPC_HOLE_SEQ:
        return pass_number(scanner, 1, &request->session_seq);
    case RPC_HOLE_MIN_INDEX:
        return pass_number(scanner, 0, &request->min_index);
    }
    return false;
}

enum fit {
    FITS,
    FITS_NOT,      /* which was seen soon */
    FITS_NOT_LATE, /* seen behind a value that took its time: try no other form */
};

static bool begins_with(const struct scanner *scanner, const char *text, size_t bytes) {
    return (size_t)(scanner->end - scanner->at) >= bytes &&
           memcmp(scanner->at, text, bytes) == 0;
}

/* The last piece of text, at the line's end: most lines of another form differ there or at the
 * very beginning. */
static bool ends_alike(const struct rpc_form *form, struct span line) {
    size_t bytes = form->piece[form->holes];
    return line.size >= bytes &&
           memcmp(line.data + line.size - bytes, form->text + form->bytes - bytes, bytes) == 0;
}

static enum fit fit_line(const struct rpc_form *form, struct span line,
                         struct rpc_request *request) {
    struct scanner scanner = scanner_of(line);
    const char *text = form->text;
    if (!ends_alike(form, line)) {
        return FITS_NOT;
    }
    for (unsigned i = 0; i < form->holes; i++) {
        size_t bytes = form->piece[i];
        if (!begins_with(&scanner, text, bytes)) {
            break;
        }
        scanner.at += bytes;
        text += bytes;
        if (!pass_hole(form->hole[i], &scanner, request)) {
            break;
        }
        if (i + 1 == form->holes &&
            (size_t)(scanner.end - scanner.at) == form->piece[form->holes]) {
            return FITS;
        }
    }
    return (size_t)(scanner.at - line.data) > LATE_BYTES ? FITS_NOT_LATE : FITS_NOT;
}

static enum fit read_like(const struct rpc_form *form, struct span line,
                          struct rpc_request *request) {
    rpc_request_init(request); /* also after a form that fitted half-way */
    enum fit fit = fit_line(form, line, request);
    if (fit == FITS) {
        request->method = RPC_APPLY;
        request->notification = form->notification;
        request->kind = form->kind;
        request->index = form->index;
        request->max_staleness_ms = form->max_staleness_ms;
    }
    return fit;
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
    form->bytes = used;
}

/* --- the whole -------------------------------------------------------------------------------
 */

static bool read_by_form(struct rpc_forms *forms, struct span line,
                         struct rpc_request *request) {
    for (unsigned i = 0; i < RPC_FORMS; i++) {
        unsigned at = (forms->latest + i) % RPC_FORMS;
        struct rpc_form *form = &forms->forms[at];
        enum fit fit = form->holes > 0 ? read_like(form, line, request) : FITS_NOT;
        if (fit == FITS) {
            forms->latest = at;
            form->use += form->use < USE_MAX ? 1 : 0;
            return true;
        }
        if (fit == FITS_NOT_LATE) {
            return false;
        }
    }
    return false;
}

/* A line that fitted no form: one in FORM_LEARN_EVERY makes a form that is of little use make
 * way for its own, or of less use. */
static void learn_sometimes(struct rpc_forms *forms, struct span line,
                            const struct rpc_request *request,
                            const struct rpc_envelope *envelope) {
    struct rpc_form *form = &forms->forms[forms->next];
    forms->dice = forms->dice * 1664525u + 1013904223u;
    if (form->holes > 0 && (forms->dice >> 16) % FORM_LEARN_EVERY != 0) {
        return;
    }
    forms->next = (forms->next + 1) % RPC_FORMS;
    if (form->use > 0) {
        form->use--;
    } else {
        learn(form, line, request, envelope);
    }
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
        request->method == RPC_APPLY) {
        learn_sometimes(forms, line, request, &envelope);
    }
    return shape;
}
