/* The scanner once more under other names, as it is where there is no SSE2: test_scan.c
 * compares the two on the same texts. */
#define SCANNER_PLAIN 1
#define scanner_utf8_bytes plain_utf8_bytes
#define scanner_string plain_string
#define scanner_value plain_value
#define scanner_next_member plain_next_member
#define scanner_next_element plain_next_element
#include "wire/scanner.c"
