/* Runs a fuzz target over files, and over the files of folders, without a fuzzer: usage:
 * replay_X PATH... */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len);

static void fail(const char *path)
{
    perror(path);
    exit(1);
}

static int replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *input;
    long len = 0;

    if (!file)
        fail(path);
    if (fseek(file, 0, SEEK_END) || (len = ftell(file)) < 0 || fseek(file, 0, SEEK_SET))
        fail(path);
    input = malloc(len ? (size_t) len : 1); /* no larger: a read beyond it is for ASan to see */
    if (!input || fread(input, 1, (size_t) len, file) != (size_t) len)
        fail(path);
    fclose(file);
    LLVMFuzzerTestOneInput(input, (size_t) len);
    free(input);
    return 1;
}

static int replay(const char *path)
{
    DIR *folder = opendir(path);
    struct dirent *entry;
    char name[4096];
    int count = 0;

    if (!folder)
        return replay_file(path);
    while ((entry = readdir(folder))) {
        if (entry->d_name[0] == '.')
            continue;
        if (snprintf(name, sizeof name, "%s/%s", path, entry->d_name) >= (int) sizeof name) {
            fprintf(stderr, "%s: path too long\n", path);
            exit(1);
        }
        count += replay_file(name);
    }
    closedir(folder);
    return count;
}

int main(int argc, char **argv)
{
    int i, count = 0;

    for (i = 1; i < argc; i++)
        count += replay(argv[i]);
    printf("ok  %d inputs replayed by %s\n", count, argv[0]);
    return count == 0; /* an empty corpus proves nothing */
}
