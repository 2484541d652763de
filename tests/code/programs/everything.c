/* Every way in which C binds a name; compiled before and after a renaming of everything that is safe to rename. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SQUARE(value) ((value) * (value))
#define STRING(value) #value
#define SWAP(type, left, right) do { type swapped = (left); (left) = (right); (right) = swapped; } while (0)

typedef struct node { int value; struct node *next; } node;
typedef int (*compare_t)(const void *, const void *);
enum color { red, green = 4, blue };
static int counter;
int total = 3;

static int by_value(const void *left, const void *right)
{
    const node *const *first = left, *const *second = right;
    return (*first)->value - (*second)->value;
}

static node *push(node *next, int value)
{
    node *fresh = malloc(sizeof *fresh);
    *fresh = (node){.value = value, .next = next};
    return fresh;
}

int length(const node *next)
{
    int value = 0;
    for (; next; next = next->next)
        value++;
    return value;
}

int old_style(count, names)
    int count;
    char **names;
{
    int sum = 0;
    while (count-- > 0)
        sum += (int)strlen(names[count]);
    return sum;
}

int shadows(int value)
{
    int sum = value;
    {
        long value = sum + 1;
        for (int sum = 0; sum < 3; sum++) {
            short value = (short)sum;
            counter += value;
        }
        sum += (int)value;
    }
    for (int value = 0; value < 2; value++)
        sum += value;
    return sum + value;
}

int labels(int again, int done)
{
again:
    if (again-- > 0)
        goto again;
    if (done)
        goto done;
    again = 7;
done:
    return again + done;
}

int types(int node, int color)
{
    struct node local = {node, NULL};
    enum color shade = green;
    return (int)sizeof(struct node) + local.value + (int)shade + color + (int)sizeof node + (int)sizeof(color);
}

int casts(int x, int y)
{
    int product = (x) * (y), difference = (x) - y, mask = (x) & (y);
    typedef int x_t;
    x_t cast = (x_t)-y;
    return product + difference + mask + cast;
}

int macros(int first, int second)
{
    int value = SQUARE(first);
    int right = second;
    const char *name = STRING(total);
    SWAP(int, first, right);
#ifdef UNKNOWN
    value += first;
#else
    value -= right;
#endif
    return value + first + name[0];
}

static int apply(int (*function)(int value, int other), int value, int other)
{
    return function(value, other);
}

int (*choose(int which))(int value)
{
    return which ? shadows : abs;
}

int variable(int rows, int grid[rows][rows])
{
    int sum = 0, buffer[rows];
    for (int row = 0; row < rows; row++)
        for (int column = 0; column < rows; column++)
            buffer[row] = grid[row][column], sum += buffer[row];
    return sum;
}

int expression(int value)
{
    int result = ({ int value = counter; value + 1; });
    __asm__ volatile("" : "+r"(result) : "r"(value));
    switch (result) {
    case red: { int blue = 1; return blue; }
    case blue: return value;
    default: break;
    }
    return result ?: value;
}

int statics(void)
{
    static int calls;
    extern int total;
    int prototype(int calls, int total);
    return ++calls + total + (int)offsetof(struct node, next);
}

int prototype(int calls, int total) { return calls - total; }

int main(int argc, char **argv)
{
    node *list = NULL, **sorted;
    for (int i = 0; i < argc; i++)
        list = push(list, i);
    int count = length(list), index = 0;
    sorted = calloc((size_t)count, sizeof *sorted);
    for (node *value = list; value; value = value->next)
        sorted[index++] = value;
    qsort(sorted, (size_t)count, sizeof *sorted, by_value);
    printf("%d %d\n", old_style(argc, argv), apply(prototype, count, choose(1)(index)));
    return 0;
}
