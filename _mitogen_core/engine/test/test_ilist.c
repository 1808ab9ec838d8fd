#include "base/ilist.h"

#include <string.h>

#include "test/test.h"

typedef struct {
    int number;
    mg_node node;
    mg_node other; /* the same thing may stand in a second list */
} thing;

#define THING(n) MG_CONTAINER(n, thing, node)

/* Whether the list has just these numbers, in both directions. */
static int is(const mg_ilist *list, const char *numbers)
{
    const char *at = numbers;
    const mg_node *last = NULL;
    for (const mg_node *node = mg_ilist_first(list); node; node = mg_ilist_next(list, node)) {
        if (THING(node)->number != *at++ - '0' || !mg_node_listed(node))
            return 0;
        if (node->prev != (last ? last : &list->ends))
            return 0;
        last = node;
    }
    return !*at && mg_ilist_last(list) == last;
}

static void fill(mg_ilist *list, thing *things, int n)
{
    memset(things, 0, (size_t) n * sizeof *things);
    mg_ilist_init(list);
    for (int i = 0; i < n; i++) {
        things[i].number = i;
        mg_ilist_append(list, &things[i].node);
    }
}

static void a_new_list_is_empty(void)
{
    mg_ilist list;
    mg_ilist_init(&list);
    CHECK(mg_ilist_empty(&list) && is(&list, ""));
    CHECK(!mg_ilist_pop(&list));
}

static void members_stand_in_the_order_they_were_appended(void)
{
    mg_ilist list;
    thing things[3];
    fill(&list, things, 3);
    CHECK(!mg_ilist_empty(&list) && is(&list, "012"));
}

static void a_member_that_is_prepended_is_the_first(void)
{
    mg_ilist list;
    thing things[2], first = {.number = 7};
    fill(&list, things, 2);
    mg_ilist_prepend(&list, &first.node);
    CHECK(is(&list, "701"));
    CHECK(THING(mg_ilist_pop(&list)) == &first && is(&list, "01"));
}

static void a_member_can_be_removed_wherever_it_stands(void)
{
    static const char *const left[] = {"123", "023", "013", "012"};
    for (int i = 0; i < 4; i++) {
        mg_ilist list;
        thing things[4];
        fill(&list, things, 4);
        mg_node_remove(&things[i].node);
        CHECK(is(&list, left[i]) && !mg_node_listed(&things[i].node));
        mg_ilist_append(&list, &things[i].node);
        CHECK(THING(mg_ilist_last(&list)) == &things[i]);
    }
}

static void a_node_of_zeros_is_in_no_list_and_may_be_removed(void)
{
    thing alone = {0};
    CHECK(!mg_node_listed(&alone.node));
    mg_node_remove(&alone.node);
    CHECK(!mg_node_listed(&alone.node));
}

static void the_only_member_leaves_an_empty_list(void)
{
    mg_ilist list;
    thing things[1];
    fill(&list, things, 1);
    CHECK(mg_node_listed(&things[0].node));
    CHECK(THING(mg_ilist_pop(&list)) == &things[0]);
    CHECK(mg_ilist_empty(&list) && !mg_node_listed(&things[0].node));
}

static void a_visit_may_remove_the_member_it_is_at(void)
{
    mg_ilist list;
    thing things[6];
    fill(&list, things, 6);
    for (mg_node *node = mg_ilist_first(&list), *next; node; node = next) {
        next = mg_ilist_next(&list, node);
        if (THING(node)->number % 2)
            mg_node_remove(node);
    }
    CHECK(is(&list, "024"));
}

static void a_list_takes_the_members_of_another_behind_its_own(void)
{
    mg_ilist to, from, empty;
    thing things[2], more[3];
    fill(&to, things, 2);
    fill(&from, more, 3);
    mg_ilist_init(&empty);
    mg_ilist_move(&to, &from);
    CHECK(is(&to, "01012") && mg_ilist_empty(&from));
    mg_ilist_move(&to, &from);
    CHECK(is(&to, "01012"));
    mg_ilist_move(&empty, &to);
    CHECK(is(&empty, "01012") && mg_ilist_empty(&to));
}

static void a_thing_stands_in_two_lists_by_two_nodes(void)
{
    mg_ilist list, other;
    thing things[2];
    fill(&list, things, 2);
    mg_ilist_init(&other);
    mg_ilist_append(&other, &things[1].other);
    mg_node_remove(&things[1].node);
    CHECK(is(&list, "0") && MG_CONTAINER(mg_ilist_first(&other), thing, other) == &things[1]);
}

int main(void)
{
    RUN(a_new_list_is_empty);
    RUN(members_stand_in_the_order_they_were_appended);
    RUN(a_member_that_is_prepended_is_the_first);
    RUN(a_member_can_be_removed_wherever_it_stands);
    RUN(a_node_of_zeros_is_in_no_list_and_may_be_removed);
    RUN(the_only_member_leaves_an_empty_list);
    RUN(a_visit_may_remove_the_member_it_is_at);
    RUN(a_list_takes_the_members_of_another_behind_its_own);
    RUN(a_thing_stands_in_two_lists_by_two_nodes);
    return 0;
}
