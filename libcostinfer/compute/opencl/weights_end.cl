/* weights_end.cl - makes room for the next type of weights. */
#undef WEIGHT
#undef LOAD1
#undef LOAD4
#undef LOAD16
#undef SCALED
#undef TYPED
