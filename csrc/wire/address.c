/* Checking the text of an address; see address.h. */
#include "wire/address.h"

#include "base/assert.h"

#include <arpa/inet.h> /* inet_pton: text to a number, no more */

#define HOST_NAME_BYTES_MAX 253 /* RFC 1035 */
#define PORT_BYTES_MAX 5
#define HOST_LABEL_BYTES_MAX 63
#define IP_TEXT_BYTES_MAX 46
#define ZONE_BYTES_MAX 15 /* a network interface's name */

STATIC_ASSERT(HOST_NAME_BYTES_MAX + 1 + PORT_BYTES_MAX < ADDRESS_BYTES_MAX,
              "the longest address fits, with a NUL behind it");

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_name_char(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_';
}

static bool port_is_valid(struct span port) {
    if (port.size == 0 || port.size > PORT_BYTES_MAX || port.data[0] == '0') {
        return false;
    }
    unsigned number = 0;
    for (size_t i = 0; i < port.size; i++) {
        if (!is_digit(port.data[i])) {
            return false;
        }
        number = number * 10 + (unsigned)(port.data[i] - '0');
    }
    return number <= 65535;
}

static bool ip_is_valid(int family, struct span text) {
    char copy[IP_TEXT_BYTES_MAX];
    unsigned char number[16];
    if (text.size == 0 || text.size >= sizeof(copy) ||
        memchr(text.data, '\0', text.size) != NULL) {
        return false;
    }
    memcpy(copy, text.data, text.size);
    copy[text.size] = '\0';
    return inet_pton(family, copy, number) == 1;
}

static bool zone_is_valid(struct span zone) {
    for (size_t i = 0; i < zone.size; i++) {
        if (!is_name_char(zone.data[i]) && zone.data[i] != '.') {
            return false;
        }
    }
    return zone.size > 0 && zone.size <= ZONE_BYTES_MAX;
}

/* What stands between the brackets: an IPv6 address, perhaps with a zone ("fe80::1%eth0"). */
static bool ipv6_is_valid(struct span text) {
    const char *percent = text.size > 0 ? memchr(text.data, '%', text.size) : NULL;
    if (percent != NULL) {
        size_t bytes = (size_t)(percent - text.data);
        if (!zone_is_valid((struct span){percent + 1, text.size - bytes - 1})) {
            return false;
        }
        text.size = bytes;
    }
    return ip_is_valid(AF_INET6, text);
}

/* Labels of letters, digits, - and _, with dots between them. All digits and dots must be an
 * IPv4 address: "1.2.3" and "300.0.0.1" are slips, no names. */
static bool host_is_valid(struct span host) {
    bool numeric = true;
    size_t label_bytes = 0;
    for (size_t i = 0; i < host.size; i++) {
        char c = host.data[i];
        if (c == '.' ? label_bytes == 0 : !is_name_char(c)) {
            return false;
        }
        label_bytes = c == '.' ? 0 : label_bytes + 1;
        if (label_bytes > HOST_LABEL_BYTES_MAX) {
            return false;
        }
        numeric = numeric && (c == '.' || is_digit(c));
    }
    if (host.size == 0 || host.size > HOST_NAME_BYTES_MAX) {
        return false;
    }
    return !numeric || ip_is_valid(AF_INET, host);
}

bool address_is_valid(struct span text) {
    size_t colon = text.size;
    while (colon > 0 && text.data[colon - 1] != ':') {
        colon--;
    }
    if (colon == 0 || !port_is_valid((struct span){text.data + colon, text.size - colon})) {
        return false;
    }
    struct span host = {text.data, colon - 1};
    if (host.size >= 2 && host.data[0] == '[' && host.data[host.size - 1] == ']') {
        return ipv6_is_valid((struct span){host.data + 1, host.size - 2});
    }
    return host_is_valid(host);
}
