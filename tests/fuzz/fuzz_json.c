/* fuzz_json.c - the gate before cJSON, and cJSON behind it.
 *
 * What the gate accepts cJSON must read whole; what cJSON then prints must pass the gate and read the same
 * again; and any bytes that we write as a JSON string must read back as what was meant. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "strbuf.h"
#include "utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "fuzz_json: %s: %s\n", what, cinf_last_error());
    abort();
}

static void check_tree(const char *text, size_t n)
{
    cJSON *tree, *again;
    if (json_parse(&tree, text, n, NULL) != CINF_OK) {
        const char *fault = cinf_last_error();
        must(json_check(text, n, NULL) != CINF_OK || strstr(fault, "duplicate key"), "the gate let it pass");
        return;
    }
    must(json_check(text, n, NULL) == CINF_OK, "the gate is not asked");
    /* The copy has no NUL behind it, so that a sanitizer detects a read past the end. */
    char *exact = malloc(n);
    must(exact != NULL, "memory");
    memcpy(exact, text, n);
    must(json_parse(&again, exact, n, NULL) == CINF_OK && cJSON_Compare(tree, again, true), "another tree");
    free(exact);
    cJSON_Delete(again);
    char *printed = cJSON_PrintUnformatted(tree);
    must(printed != NULL, "printing");
    must(json_parse(&again, printed, strlen(printed), NULL) == CINF_OK, "what cJSON printed");
    must(cJSON_Compare(tree, again, true), "another tree after printing");
    cJSON_free(printed);
    cJSON_Delete(again);
    cJSON_Delete(tree);
}

/* Writes all of data as one JSON string, and reads it back. */
static void check_string(const char *text, size_t n)
{
    struct strbuf json = { 0 }, meant = { 0 };
    for (size_t at = 0, used; at < n; at += used) {
        if (text[at] == '\0') /* cannot be read back, because cJSON's strings end there */
            goto done;
        if (utf8_read(text + at, n - at, &used) == UTF8_BAD)
            strbuf_puts(&meant, "\xEF\xBF\xBD");
        else
            strbuf_add(&meant, text + at, used);
    }
    strbuf_puts(&meant, "");
    strbuf_put_json(&json, text, n);
    must(!json.failed && !meant.failed, "memory");
    cJSON *value;
    must(json_parse(&value, json.text, json.len, NULL) == CINF_OK, "our own string");
    must(cJSON_IsString(value) && strcmp(value->valuestring, meant.text) == 0, "another string");
    cJSON_Delete(value);
done:
    strbuf_free(&json);
    strbuf_free(&meant);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_tree((const char *)data, size);
    check_string((const char *)data, size);
    return 0;
}
