"""The operators a published model may use: arithmetic on tensors it was given or carries.

What reads or writes files, starts threads or processes, calls Python, prints or draws random
numbers is not among them; nor is what hands out memory that nobody has written to, or looks at
memory beyond its tensor.
"""

from __future__ import annotations

__all__ = ["allowed"]

_OF_NUMBERS = """
    abs acos add addcdiv addcmul asin atan atan2 bitwise_and bitwise_left_shift bitwise_not
    bitwise_or bitwise_right_shift bitwise_xor ceil clamp clamp_max clamp_min clip copysign cos
    cosh div divide elu erf erfc erfinv exp exp2 expm1 fill floor floor_divide floordiv fmod frac
    gelu hardsigmoid hardswish hardtanh heaviside hypot isfinite isinf isnan isneginf isposinf
    leaky_relu lerp lgamma log log10 log1p log2 log_sigmoid logaddexp logaddexp2 logical_and
    logical_not logical_or logical_xor logit maximum minimum mish mul multiply nan_to_num neg
    negative pow prelu reciprocal relu relu6 remainder round rsqrt rsub selu sgn sigmoid sign silu
    sin sinh softplus sqrt square sub subtract tan tanh true_divide trunc where xlogy zero
"""
_OF_COMPARISONS_AND_LISTS = """
    __and__ __contains__ __derive_index __getitem__ __interpolate__ __is__ __isnot__ __not__ __or__
    __range_length __xor__ _set_item Bool Float FloatImplicit Int IntImplicit ScalarImplicit
    allclose append eq equal extend format ge greater greater_equal gt insert is_floating_point
    is_nonzero isclose item le len less less_equal list lt ne not_equal percentFormat pop str
"""
_ALONG_DIMENSIONS = """
    all amax amin aminmax any argmax argmin argsort bincount bucketize count_nonzero cummax cummin
    cumprod cumsum diff kthvalue log_softmax logcumsumexp logsumexp max mean median min mode msort
    nanmean nansum norm prod quantile searchsorted softmax sort std std_mean sum topk
    unique_consecutive var var_mean
"""
_OF_SHAPES_AND_PLACES = """
    atleast_1d atleast_2d broadcast_tensors broadcast_to cat chunk clone concat contiguous copy
    detach diag diagonal dim expand expand_as flatten flip gather index index_add index_copy
    index_fill index_put index_select masked_fill masked_scatter masked_select movedim narrow
    nonzero numel numpy_T permute repeat repeat_interleave reshape reshape_as roll scatter
    scatter_add scatter_reduce select size slice split split_with_sizes squeeze stack swapaxes
    swapdims t take take_along_dim tile transpose tril triu unbind unflatten unfold unsqueeze view
    view_as
"""
_OF_LAYERS = """
    addbmm addmm addmv baddbmm bilinear bmm constant_pad_nd conv1d cosine_similarity dot dropout
    einsum embedding embedding_bag feature_dropout glu group_norm inner layer_norm linalg_norm
    linalg_vector_norm linear matmul mm mv native_layer_norm normalize one_hot outer pad
    scaled_dot_product_attention tensordot
"""
_OF_NEW_TENSORS_AND_KINDS = """
    _autocast_to_full_precision _autocast_to_reduced_precision arange as_tensor bfloat16 device eye
    float full full_like half linspace new_full new_ones new_zeros ones ones_like result_type
    scalar_tensor tensor to tril_indices triu_indices type_as zeros zeros_like
"""
_ATEN = frozenset(
    " ".join(
        [
            *(_OF_NUMBERS, _OF_COMPARISONS_AND_LISTS, _ALONG_DIMENSIONS, _OF_SHAPES_AND_PLACES),
            *(_OF_LAYERS, _OF_NEW_TENSORS_AND_KINDS),
        ]
    ).split()
)

_OF_THE_LANGUAGE = """
    CallFunction CallMethod Constant CreateObject DictConstruct DictIndex GetAttr If ListConstruct
    ListUnpack Loop NumToTensor RaiseException SetAttr TupleConstruct TupleIndex TupleUnpack
    Uninitialized device dtype is_cuda max min ndim shape unchecked_cast unchecked_unwrap_optional
"""
_PRIM = frozenset(_OF_THE_LANGUAGE.split())


def allowed(operator: str) -> bool:
    """Whether a model may use an operator, such as ``aten::add`` or, in place, ``aten::add_``."""
    namespace, _, name = operator.partition("::")
    if namespace == "prim":
        return name in _PRIM
    in_place = name.endswith("_") and not name.endswith("__")
    return namespace == "aten" and (name in _ATEN or (in_place and name[:-1] in _ATEN))
