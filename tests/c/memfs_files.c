/* Looking at the files in memory, and tampering with them; see memfs.h. */
#include "memfs_internal.h"

#include "check.h"

int memfs_count(void) {
    return NAMES_MAX;
}

const char *memfs_name(int number) {
    return memfs_cached[number].text[0] != 0 ? memfs_cached[number].text : NULL;
}

const struct buffer *memfs_peek(const char *name) {
    struct name *found = memfs_find(memfs_cached, name);
    return found != NULL ? &memfs_nodes[found->node].cache : NULL;
}

void memfs_put(const char *name, struct span content) {
    int number = memfs_new_node();
    buffer_append_span(&memfs_nodes[number].cache, content);
    buffer_append_span(&memfs_nodes[number].disk, content);
    memfs_set(memfs_cached, name, number);
    memfs_set(memfs_stored, name, number);
}

void memfs_remove(const char *name) {
    memfs_unset(memfs_cached, name);
    memfs_unset(memfs_stored, name);
}

struct memfs_image {
    struct name names[NAMES_MAX];
    struct buffer contents[NAMES_MAX];
};

struct memfs_image *memfs_save(void) {
    struct memfs_image *image = calloc(1, sizeof(*image));
    CHECK(image != NULL);
    memcpy(image->names, memfs_cached, sizeof(memfs_cached));
    for (int i = 0; i < NAMES_MAX; i++) {
        if (memfs_cached[i].text[0] != 0) {
            buffer_append_span(&image->contents[i],
                               buffer_span(&memfs_nodes[memfs_cached[i].node].cache));
        }
    }
    return image;
}

void memfs_load(const struct memfs_image *image) {
    memfs_reset();
    memfs_exists = true;
    memfs_exists_stored = true;
    for (int i = 0; i < NAMES_MAX; i++) {
        if (image->names[i].text[0] != 0) {
            memfs_put(image->names[i].text, buffer_span(&image->contents[i]));
        }
    }
}

void memfs_image_free(struct memfs_image *image) {
    for (int i = 0; i < NAMES_MAX; i++) {
        buffer_free(&image->contents[i]);
    }
    free(image);
}
