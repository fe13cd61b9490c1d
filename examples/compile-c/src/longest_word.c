#include "words.h"
#include <ctype.h>

size_t longest_word(const char *text)
{
    size_t longest = 0, length = 0;
    for (;; text++) {
        if (*text && !isspace((unsigned char)*text)) {
            length++;
            continue;
        }
        if (length > longest)
            longest = length;
        if (!*text)
            return longest;
        length = 0;
    }
}
