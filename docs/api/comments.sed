# What Doxygen reads instead of a header: its plain comments, marked as documentation, so that the headers stay
# free of markup.
1s|^/\* \([a-z_]*\.hp*\) - |/** @file\n * |
/^\/\* ---- .* -* \*\/$/d
s|^\(struct [a-z_]*;\) /\*.*|\1|
s|^enum { \([A-Z_]* = [0-9]*\) }; /\* \(.*\)|enum { \1 /**< \2 }; /**< \2|
s|^\( *\)/\* |\1/** |
s|^\(.*[^ ].*\) /\* |\1 /**< |
