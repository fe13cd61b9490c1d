#include "words.h"
#include <ctype.h>

size_t count_letters(const char *text)
{
    size_t letters = 0;
    for (; *text; text++)
        letters += isalpha((unsigned char)*text) != 0;
    return letters;
}
