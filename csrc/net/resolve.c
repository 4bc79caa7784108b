/* Addresses as text and as the system's structures; see internal.h.
 *
 * Looks up no names: that is waited for in net.c and asked for in dial.c. */
#include <netinet/in.h>
#include <string.h>

#include "net/internal.h"

static bool copy(char *into, size_t room, const char *from, size_t bytes) {
    if (bytes == 0 || bytes >= room) {
        return false;
    }
    memcpy(into, from, bytes);
    into[bytes] = '\0';
    return true;
}

static bool port_is_valid(const char *port) {
    unsigned number = 0;
    size_t digits = 0;
    for (; port[digits] >= '0' && port[digits] <= '9' && digits < 5; digits++) {
        number = number * 10 + (unsigned)(port[digits] - '0');
    }
    return digits > 0 && port[digits] == '\0' && number <= 65535;
}

bool resolve_split(const char *address, struct resolve_parts *parts) {
    const char *colon = strrchr(address, ':');
    if (colon == NULL || !port_is_valid(colon + 1)) {
        return false;
    }
    size_t bytes = (size_t)(colon - address);
    bool bracketed = bytes > 2 && address[0] == '[' && colon[-1] == ']';
    if (!bracketed && memchr(address, ':', bytes) != NULL) {
        return false;
    }
    const char *host = bracketed ? address + 1 : address;
    return copy(parts->host, sizeof(parts->host), host, bracketed ? bytes - 2 : bytes) &&
           copy(parts->port, sizeof(parts->port), colon + 1, strlen(colon + 1));
}

static int port_number(const struct resolve_parts *parts) {
    int number = 0;
    for (const char *digit = parts->port; *digit != '\0'; digit++) {
        number = number * 10 + (*digit - '0');
    }
    return number;
}

bool resolve_literal(const struct resolve_parts *parts, struct sockaddr_storage *found) {
    memset(found, 0, sizeof(*found));
    int port = port_number(parts);
    return uv_ip4_addr(parts->host, port, (struct sockaddr_in *)found) == 0 ||
           uv_ip6_addr(parts->host, port, (struct sockaddr_in6 *)found) == 0;
}

bool resolve_is_loopback(const struct sockaddr *address) {
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *four = (const struct sockaddr_in *)(const void *)address;
        return ntohl(four->sin_addr.s_addr) >> 24 == 127;
    }
    if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)(const void *)address;
        return IN6_IS_ADDR_LOOPBACK(&six->sin6_addr);
    }
    return false;
}

unsigned resolve_port(const struct sockaddr *address) {
    if (address->sa_family == AF_INET6) {
        return ntohs(((const struct sockaddr_in6 *)(const void *)address)->sin6_port);
    }
    return ntohs(((const struct sockaddr_in *)(const void *)address)->sin_port);
}
