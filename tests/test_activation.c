#include "exact_activation.h"

#include <costinfer/checkpoint.h>
#include <stdio.h>
#include <string.h>

#include "file.h"
#include "json.h"
#include "mem.h"
#include "support.h"

/* Every name that transformers takes means what it means there (tests/golden/make_activations.py).  The
 * formulas of this suite are those that every device is compared with (backend_ops.h, test_packed.c). */
START_TEST(every_name_of_transformers)
{
    char *text, *folder = support_temp_folder();
    size_t n;
    cJSON *tree;
    bool seen[ACTIVATIONS] = { false };
    ck_ok(file_load(&text, &n, support_source("tests/golden/activations.json"), 1 << 20));
    ck_ok(json_parse(&tree, text, n, NULL));
    mem_free(text);
    const cJSON *values, *at, *value;
    cJSON_ArrayForEach(values, json_member(tree, "names"))
    {
        struct cinf_config c;
        char config[128];
        snprintf(config, sizeof config, "{\"activation_function\":\"%s\"}", values->string);
        support_write(folder, "config.json", config, -1);
        ck_ok(cinf_config_read(&c, folder));
        seen[c.activation] = true;
        at = json_member(tree, "at")->child;
        for (value = values->child; value; value = value->next, at = at->next) {
            double exact = exact_activation(c.activation, at->valuedouble);
            ck_assert_msg(fabs(exact - value->valuedouble) <= 1e-9 * (1 + fabs(exact)),
                          "%s(%g) = %.12g, not %.12g", values->string, at->valuedouble, exact,
                          value->valuedouble);
        }
    }
    for (int a = 0; a < ACTIVATIONS; a++)
        ck_assert_msg(seen[a], "%s is not in the file", cinf_activation_name((enum cinf_activation)a));
    cJSON_Delete(tree);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("activation");
    TCase *c = tcase_create("formulas");
    suite_add_tcase(s, c);
    tcase_add_test(c, every_name_of_transformers);
    return s;
}
