# What Doxygen reads instead of a header: its plain comments, marked as documentation, so that the headers stay
# free of markup.
1s|^/\* \([a-z_]*\.h\) - |/** @file\n * |
/^\/\* ---- .* -* \*\/$/d
s|^\(struct [a-z_]*;\) /\*.*|\1|
s|^\( *\)/\* |\1/** |
s|^\(.*[^ ].*\) /\* |\1 /**< |
