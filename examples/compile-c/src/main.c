#include "words.h"
#include <stdio.h>

int main(int argc, char **argv)
{
    const char *text = argc > 1 ? argv[1] : "";
    printf("%zu words, %zu letters, longest %zu\n", count_words(text), count_letters(text), longest_word(text));
    return 0;
}
