/* The address of a server as text: "host:port".
 *
 * It knows nothing of name look-ups: whether an address exists is net/'s to find out.
 * Invariant: an accepted address is ASCII without spaces, quotes or backslashes, so it can
 * stand in JSON as it is. */
#ifndef RAFTPICO_WIRE_ADDRESS_H
#define RAFTPICO_WIRE_ADDRESS_H

#include <stdbool.h>

#include "base/buffer.h"
#include "base/limits.h"

#define ADDRESS_EXPECTED "host:port (a name, an IPv4 address or [IPv6]; port 1 to 65535)"

/* Whether `text` is a host name, an IPv4 address or an IPv6 address in brackets, a colon, and a
 * port from 1 to 65535 without leading zeros (members are told apart by their text); with room
 * for a NUL within ADDRESS_BYTES_MAX. */
bool address_is_valid(struct span text);

#endif
