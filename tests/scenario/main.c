/* scenario [--check | --rewrite] FILE...: play each file; see scenario.h.
 *
 * Without an option the played conversation is printed; --check compares it with the file and
 * names the first line that differs; --rewrite puts it in the file's place. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "scenario.h"

enum mode { MODE_PRINT, MODE_CHECK, MODE_REWRITE };

static char *read_file(const char *path) {
    FILE *file = fopen(path, "r");
    char *text = NULL;
    size_t bytes = 0;
    if (file != NULL) {
        if (getdelim(&text, &bytes, '\0', file) < 0) {
            free(text);
            text = NULL;
        }
        fclose(file);
    }
    return text;
}

/* Commands and comments as they stand, each command followed by what it brought about. */
static bool play(const char *text, FILE *out) {
    struct cluster *cluster = calloc(1, sizeof(*cluster));
    ASSERT(cluster != NULL);
    cluster->out = out;
    bool understood = true;
    while (*text != '\0') {
        size_t bytes = strcspn(text, "\n");
        char line[512];
        snprintf(line, sizeof(line), "%.*s", (int)bytes, text);
        text += bytes + (text[bytes] == '\n' ? 1 : 0);
        if (line[0] == ' ') {
            continue; /* of an earlier run */
        }
        fprintf(out, "%s\n", line);
        if (line[0] != '\0' && line[0] != '#' && !command_run(cluster, line)) {
            fprintf(out, "    NOT UNDERSTOOD\n");
            understood = false;
        }
    }
    cluster_clear(cluster);
    free(cluster);
    return understood;
}

static void say_difference(const char *path, const char *expected, const char *played) {
    for (uint32_t line = 1;; line++) {
        size_t a = strcspn(expected, "\n");
        size_t b = strcspn(played, "\n");
        if (a != b || strncmp(expected, played, a) != 0) {
            printf("%s:%u: differs\n  expected: %.*s\n  played:   %.*s\n", path, line, (int)a,
                   expected, (int)b, played);
            return;
        }
        expected += a + (expected[a] == '\n' ? 1 : 0);
        played += b + (played[b] == '\n' ? 1 : 0);
    }
}

static bool finish(const char *path, enum mode mode, const char *text, const char *played) {
    bool violated = strstr(played, "VIOLATION") != NULL;
    switch (mode) {
    case MODE_PRINT:
        fputs(played, stdout);
        return !violated;
    case MODE_CHECK:
        if (strcmp(text, played) != 0) {
            say_difference(path, text, played);
            return false;
        }
        return !violated;
    case MODE_REWRITE: {
        FILE *file = fopen(path, "w");
        bool written = file != NULL && fputs(played, file) >= 0;
        return file != NULL && fclose(file) == 0 && written && !violated;
    }
    }
    return false;
}

static bool run(const char *path, enum mode mode) {
    char *text = read_file(path);
    if (text == NULL) {
        printf("%s: cannot be read\n", path);
        return false;
    }
    if (mode == MODE_CHECK) {
        printf("play %s\n", path);
        fflush(stdout);
    }
    char *played = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&played, &bytes);
    ASSERT(out != NULL);
    bool understood = play(text, out);
    fclose(out);
    bool good = finish(path, mode, text, played) && understood;
    free(played);
    free(text);
    ASSERT(memory_live_count() == 0);
    return good;
}

int main(int argc, char **argv) {
    enum mode mode = MODE_PRINT;
    bool good = argc > 1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--check") == 0) {
            mode = MODE_CHECK;
        } else if (strcmp(argv[i], "--rewrite") == 0) {
            mode = MODE_REWRITE;
        } else {
            good = run(argv[i], mode) && good;
        }
    }
    return good ? 0 : 1;
}
