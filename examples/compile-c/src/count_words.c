#include "words.h"
#include <ctype.h>

size_t count_words(const char *text)
{
    size_t words = 0;
    int inside = 0;
    for (; *text; text++) {
        int space = isspace((unsigned char)*text);
        words += !space && !inside;
        inside = !space;
    }
    return words;
}
