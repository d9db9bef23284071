"""Every primitive that a device must offer, listed once.

Primitives work on arrays (``numpy.ndarray`` on ``cpu`` and ``emulated``, ``cupy.ndarray`` on ``cuda``), know nothing
of tensors or gradients and trust their arguments: the operators in gpucnn/functional/ have checked them. Images are
C-contiguous N, H, W, C and filters K, R, S, C/groups. On ``cpu`` the dtype is float32 or float64; ``cuda`` and
``emulated`` compute in float32, and in float16 and bfloat16 with float32 inside: activations and weights are then of
the one half type, biases, the parameters and statistics of batch normalisation and the gradients of weights float32.

What needs no kernel of its own (broadcast arithmetic, reductions, indexing, reshape) is written over ``xp``, the
array module.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from gpucnn.backends.updates import ALONE, Along, Row
from gpucnn.geometry import AdaptivePool2dGeometry, Conv2dGeometry, Pool2dGeometry

Array = Any  # numpy.ndarray or cupy.ndarray; the two share no base class
BatchStatistics = tuple[Array, Array | None, Array]  # mean, its remainder (None for 0) and variance, each (C,)
RandomKey = tuple[int, int, int]  # (seed, step, purpose) of one Philox stream, see gpucnn/random.py


class Backend(ABC):
    """The array-level operations of one device."""

    name: str  # "cpu", "cuda" or "emulated"
    xp: Any  # the array module: numpy or cupy
    recomputes: bool  # whether computing a value again is cheaper than to keep it: GPUs wait for memory
    capturing: bool = False  # whether this thread's launches are recorded and not run, see gpucnn.cuda.graph

    def context(self) -> AbstractContextManager[Any]:
        """Makes this device the current one of ``xp`` while primitives and ``xp`` functions run."""
        return nullcontext()

    @abstractmethod
    def from_host(self, array: Any) -> Array:
        """Copies a NumPy array to the device, keeping its memory order."""

    @abstractmethod
    def to_host(self, array: Array) -> Any:
        """Copies to a new NumPy array, keeping the memory order.

        Waits for the device and raises what its data got wrong.
        """

    @abstractmethod
    def synchronize(self) -> None:
        """Waits for all launched work and raises what its data got wrong (a label out of range)."""

    # ---- convolution ----

    @abstractmethod
    def conv2d_fprop(
        self,
        x: Array,
        w: Array,
        bias: Array | None,
        g: Conv2dGeometry,
        activation: str | None = None,
        tf32: bool = False,
    ) -> Array:
        """y (N,P,Q,K): y[n,p,q,k] = bias[k] + sum over r, s, c of x[n, p*stride_h - pad_top + r*dilation_h, ..., c]
        w[k,r,s,c]; with ``activation="relu"`` max(y, 0) of that, NaN kept.

        ``tf32``, here and below, lets float32 arrays go through tensor cores, which round their inputs to 10 bits of
        mantissa; ``cpu`` ignores it.
        """

    @abstractmethod
    def conv2d_dgrad(
        self, dy: Array, w: Array, g: Conv2dGeometry, mask: Array | None = None, tf32: bool = False
    ) -> Array:
        """dx (N,H,W,C), the gradient for the input, of dy (N,P,Q,K); 0 where not mask > 0, with a mask like dx."""

    @abstractmethod
    def conv2d_wgrad(
        self, x: Array, dy: Array, g: Conv2dGeometry, bias: bool = False, tf32: bool = False
    ) -> tuple[Array, Array | None]:
        """dw (K,R,S,C/groups), the gradient for the filters, and with ``bias`` db (K,), that for the bias."""

    def pools_convolution(self, g: Conv2dGeometry) -> bool:
        """Whether the two primitives below take ``g``, and are faster than the single ones."""
        return False

    def conv2d_max_pool_fprop(self, x: Array, w: Array, bias: Array | None, g: Conv2dGeometry) -> tuple[Array, Array]:
        """:meth:`max_pool2d_forward` over 2 x 2 windows, side by side, of :meth:`conv2d_fprop` with ReLU.

        Where y is 0 its place may be any: ReLU lets no gradient through.
        """
        raise NotImplementedError(f"{type(self).__name__} does not pool convolutions")

    def conv2d_max_pool_wgrad(self, x: Array, dy: Array, index: Array, g: Conv2dGeometry) -> Array:
        """dw of what :meth:`max_pool2d_backward` makes of ``dy``, which is 0 where y is, and ``index``."""
        raise NotImplementedError(f"{type(self).__name__} does not pool convolutions")

    @abstractmethod
    def bias_grad(self, dy: Array) -> Array:
        """db (K,): the sum of dy (..., K) over all axes but the last."""

    # ---- pooling ----

    @abstractmethod
    def max_pool2d_forward(self, x: Array, g: Pool2dGeometry) -> tuple[Array, Array]:
        """y (N,P,Q,C), the maximum of each window, and index (N,P,Q,C), its place r*S + s there.

        The first of equals wins, and NaN above all; padding never does. index is uint8 where R*S <= 256, else int32.
        """

    @abstractmethod
    def max_pool2d_backward(self, dy: Array, index: Array, g: Pool2dGeometry) -> Array:
        """dx (N,H,W,C): each dy goes to the input that was its window's maximum; overlapping windows add up."""

    @abstractmethod
    def avg_pool2d_forward(self, x: Array, g: Pool2dGeometry, count_include_pad: bool, divisor: int | None) -> Array:
        """y (N,P,Q,C), the mean over each window, PyTorch's rules for the divisor.

        ``divisor`` overrides; else the window clipped to the padded input (count_include_pad) or to the input itself
        is counted.
        """

    @abstractmethod
    def avg_pool2d_backward(self, dy: Array, g: Pool2dGeometry, count_include_pad: bool, divisor: int | None) -> Array:
        """dx (N,H,W,C) of :meth:`avg_pool2d_forward`."""

    @abstractmethod
    def adaptive_max_pool2d_forward(self, x: Array, g: AdaptivePool2dGeometry) -> tuple[Array, Array]:
        """y (N,P,Q,C), the maximum of each window, and index (N,P,Q,C), int32, its place h*W + w in the image.

        The first of equals wins, and NaN above all.
        """

    @abstractmethod
    def adaptive_max_pool2d_backward(self, dy: Array, index: Array, g: AdaptivePool2dGeometry) -> Array:
        """dx (N,H,W,C): each dy goes to the input that was its window's maximum; overlapping windows add up."""

    @abstractmethod
    def adaptive_avg_pool2d_forward(self, x: Array, g: AdaptivePool2dGeometry) -> Array:
        """y (N,P,Q,C), the mean of each window."""

    @abstractmethod
    def adaptive_avg_pool2d_backward(self, dy: Array, g: AdaptivePool2dGeometry) -> Array:
        """dx (N,H,W,C) of :meth:`adaptive_avg_pool2d_forward`."""

    # ---- elementwise and normalisation ----

    @abstractmethod
    def relu_forward(self, x: Array) -> Array:
        """max(x, 0), NaN kept; any shape, C-contiguous."""

    @abstractmethod
    def relu_backward(self, dy: Array, y: Array) -> Array:
        """dy where y > 0, else 0 (the gradient at 0 is 0, as in PyTorch); y is the forward's result."""

    @abstractmethod
    def gelu_forward(self, x: Array, tanh: bool, keep: bool) -> tuple[Array, Array | None]:
        """y = x Phi(x), or with ``tanh`` its approximation by tanh; with ``keep`` also what gelu_backward wants.

        What is kept is like x and the device's choice: the derivative at x on ``cpu``, x itself elsewhere. Any shape,
        C-contiguous.
        """

    @abstractmethod
    def gelu_backward(self, dy: Array, kept: Array, tanh: bool) -> Array:
        """dx, ``kept`` as gelu_forward gave it."""

    @abstractmethod
    def silu_forward(self, x: Array, keep: bool) -> tuple[Array, Array | None]:
        """y = x / (1 + exp(-x)) and, as in :meth:`gelu_forward`, what silu_backward wants; any shape, C-contiguous."""

    @abstractmethod
    def silu_backward(self, dy: Array, kept: Array) -> Array:
        """dx, ``kept`` as silu_forward gave it."""

    @abstractmethod
    def lrn_forward(
        self, x: Array, size: int, alpha: float, beta: float, k: float, keep: bool
    ) -> tuple[Array, Array | None]:
        """y = x / scale**beta, scale = k + alpha / size * (sum of x*x over ``size`` channels); with ``keep`` also what
        lrn_backward wants.

        x is (..., C), C-contiguous. The window of channel c is [c - size // 2, c + (size - 1) // 2], as in PyTorch.
        What is kept is the device's choice: scale on ``cpu``, nothing elsewhere: there backward computes it anew.
        """

    @abstractmethod
    def lrn_backward(
        self,
        dy: Array,
        x: Array,
        kept: Array | None,
        size: int,
        alpha: float,
        beta: float,
        k: float,
        mask: bool = False,
    ) -> Array:
        """dx = dy scale**-beta - (2 alpha beta / size) x (sum of dy x scale**(-beta - 1) over the windows that hold the
        channel).

        ``kept`` as lrn_forward gave it. ``mask``: dx = 0 where not x > 0, which is the backward of a ReLU that gave x.
        """

    def lrn_backward_of_pooled(
        self, dy: Array, index: Array, g: Pool2dGeometry, x: Array, size: int, alpha: float, beta: float, k: float,
        mask: bool = False,
    ) -> Array:  # fmt: skip
        """:meth:`lrn_backward` of what :meth:`max_pool2d_backward` makes of ``dy`` and ``index``, with nothing kept.

        dy is (N,P,Q,C), and may lie in memory in the order N, C, P, Q.
        """
        raise NotImplementedError(f"{type(self).__name__} recomputes nothing")

    def max_pool2d_backward_of_lrn(
        self, dy: Array, x: Array, size: int, alpha: float, beta: float, k: float, mask: bool, index: Array,
        g: Pool2dGeometry,
    ) -> Array:  # fmt: skip
        """:meth:`max_pool2d_backward` of what :meth:`lrn_backward` makes of ``dy`` and ``x``, with nothing kept."""
        raise NotImplementedError(f"{type(self).__name__} recomputes nothing")

    @abstractmethod
    def batch_norm_statistics(
        self,
        x: Array,
        running_mean: Array | None,
        running_var: Array | None,
        momentum: float,
        batches: Array | None = None,
    ) -> BatchStatistics:
        """mean, what rounding took from it, and variance (divided by the count), each (C,), of x (..., C) by channel.

        Updates the running arrays (C,) in place: running = (1 - momentum) * running + momentum * value, the variance's
        value being the unbiased one. x holds two rows at least, or none, which give zeros and update nothing.
        ``batches`` (1,), int64, grows by 1.
        """

    @abstractmethod
    def batch_norm_forward(
        self,
        x: Array,
        statistics: BatchStatistics,
        weight: Array | None,
        bias: Array | None,
        eps: float,
        activation: str | None = None,
    ) -> Array:
        """y = f((x - mean) / sqrt(var + eps) * weight + bias), by channel; x is (..., C), C-contiguous.

        f is the identity, or by ``activation`` "relu", "gelu", "gelu_tanh" or "silu".
        """

    @abstractmethod
    def batch_norm_backward(
        self,
        dy: Array,
        x: Array,
        statistics: BatchStatistics,
        weight: Array | None,
        eps: float,
        training: bool,
        needs: tuple[bool, bool, bool],
        bias: Array | None = None,
        activation: str | None = None,
    ) -> tuple[Array | None, Array | None, Array | None]:
        """dx (..., C), dweight (C,) and dbias (C,), each None where ``needs`` is false.

        dbias = sum of dy, dweight = sum of dy z with z = (x - mean) / sqrt(var + eps), and dx = weight / sqrt(var +
        eps) * dy; where ``training``, mean and variance were x's own, and dy - dbias / rows - z * dweight / rows stands
        in the place of dy there.

        With an ``activation`` f, dy f'(z weight + bias) stands in the place of dy everywhere; z is made anew from x.
        """

    @abstractmethod
    def dropout(self, x: Array, p: float, key: RandomKey) -> Array:
        """x * keep / (1 - p), C-contiguous, keep drawn from the Philox stream of ``key`` (random.keep_mask);
        0 <= p < 1.

        The same key gives the same mask, so backward is this function on dy.
        """

    # ---- arithmetic ----

    @property
    @abstractmethod
    def precisions(self) -> tuple[str, ...]:
        """The names that :func:`gpucnn.precision` takes here."""

    @abstractmethod
    def computes(self, dtype: Any) -> bool:
        """Whether primitives take arrays of ``dtype``: float32 and, on ``cpu``, float64, elsewhere float16 and
        bfloat16.
        """

    @abstractmethod
    def add(self, x: Array, y: Array, activation: str | None = None) -> Array:
        """x + y, of one shape and dtype, C-contiguous; with ``activation="relu"`` max(x + y, 0), NaN kept."""

    @abstractmethod
    def scale(self, x: Array, factor: float, by: Array | None = None, dtype: Any = None) -> Array:
        """x * factor, times the one element of ``by`` (1,) where it is given; any shape, C-contiguous.

        ``by`` has the dtype of the loss: float32, or on ``cpu`` that of x. ``dtype``: that of x, or a half type for
        float32.
        """

    @abstractmethod
    def cast(self, x: Array, dtype: Any) -> Array:
        """x in ``dtype``, rounded to nearest: float32 to float16 or bfloat16, or back; any shape, C-contiguous."""

    @abstractmethod
    def cast_all(self, arrays: Sequence[Array], outs: Sequence[Array]) -> None:
        """outs[i] = arrays[i] on all arrays, from float32 to the one half dtype of ``outs``, in one launch.

        Arrays of one position share size and memory order.
        """

    @abstractmethod
    def transpose(self, x: Array) -> Array:
        """(B, N, M) of x (B, M, N), copied: channels-last memory to C order, and back."""

    @abstractmethod
    def resize_rows(self, x: Array, columns: int) -> Array:
        """(..., columns) of x (..., C): the first elements of each row, and zeros behind them where there are more."""

    # ---- matrices ----

    @abstractmethod
    def matmul(
        self, a: Array, b: Array, transpose_a: bool = False, transpose_b: bool = False, tf32: bool = False
    ) -> Array:
        """(..., M, N) of a (..., M, K) and b (..., K, N), both C-contiguous with equal leading axes (none, or one batch
        axis).

        ``transpose_a``: a is stored (..., K, M); ``transpose_b``: b is stored (..., N, K).
        """

    @abstractmethod
    def linear_forward(
        self, x: Array, w: Array, bias: Array | None, activation: str | None = None, tf32: bool = False
    ) -> Array:
        """y (M, N) = x (M, K) times w (N, K) transposed, plus bias (N,); ``activation`` as in :meth:`conv2d_fprop`."""

    @abstractmethod
    def linear_dgrad(self, dy: Array, w: Array, mask: Array | None = None, tf32: bool = False) -> Array:
        """dx (M, K) = dy (M, N) times w (N, K); 0 where not mask > 0, with a mask like dx."""

    @abstractmethod
    def linear_wgrad(self, x: Array, dy: Array, bias: bool = False, tf32: bool = False) -> tuple[Array, Array | None]:
        """dw (N, K) = dy (M, N) transposed times x (M, K), and with ``bias`` db (N,), the sums of dy's columns."""

    # ---- loss ----

    @abstractmethod
    def softmax_cross_entropy_forward(
        self, logits: Array, labels: Array, smoothing: float = 0.0
    ) -> tuple[Array, Array]:
        """losses (N,) and log_sum_exp (N,) = log(sum exp logits[n]), both overflow-safe.

        losses = log_sum_exp - (1 - smoothing) logits[n, labels[n]] - smoothing * (mean of logits[n]); 0 <= smoothing
        <= 1.

        Logits are (N, C), labels (N,) int32 or int64. A label outside [0, C) raises ValueError: at once on ``cpu`` and
        ``emulated``, at the next host read on ``cuda``, which until then gives NaN for that loss.
        """

    @abstractmethod
    def softmax_cross_entropy_backward(
        self, dlosses: Array, logits: Array, labels: Array, log_sum_exp: Array, smoothing: float = 0.0
    ) -> Array:
        """dlogits (N, C) = dlosses[n] * (softmax(logits[n]) - (1 - smoothing) onehot(labels[n]) - smoothing / C)."""

    @abstractmethod
    def softmax_cross_entropy_step(
        self, logits: Array, labels: Array, smoothing: float, factor: float
    ) -> tuple[Array, Array, Array]:
        """loss (1,), dlogits (N, C) and correct (1,) int32 of a training step, in one launch on a GPU.

        loss = factor * (sum of the losses of softmax_cross_entropy_forward, in a fixed order); dlogits is its gradient;
        correct counts the rows whose largest logit is the label's (the first of equals, NaN above all, as in argmax).
        loss is float32 for half logits, and dlogits of float16 logits is float32 too: a loss scale comes before the
        rounding.
        """

    # ---- indexing ----

    @abstractmethod
    def scatter_add(self, size: int, positions: Array, values: Array) -> Array:
        """out (size,): out[positions[i]] += values[i] in the order of i, from zeros.

        positions int64 (M,) in range, values (M,).
        """

    # ---- optimizers ----
    # Arrays of one position share size and memory order and are updated in place, all in one launch. ``rows`` has each
    # parameter's numbers, ``along`` what the launch does besides (gpucnn/backends/updates.py).

    @abstractmethod
    def sgd_step(
        self,
        parameters: Sequence[Array],
        gradients: Sequence[Array],
        momenta: Sequence[Array | None],
        rows: Sequence[Row],
        along: Along = ALONE,
    ) -> None:
        """One step of PyTorch's SGD; the numbers are SgdNumbers.

        d = gradient + weight_decay * parameter; with a momentum buffer: buffer = d at the first step, else momentum *
        buffer + one_minus_dampening * d, and d = d + momentum * buffer if ``nesterov`` else buffer; parameter -= lr *
        d. ``maximize`` takes minus the gradient.
        """

    @abstractmethod
    def adam_step(
        self,
        parameters: Sequence[Array],
        gradients: Sequence[Array],
        exp_avgs: Sequence[Array],
        exp_avg_sqs: Sequence[Array],
        max_exp_avg_sqs: Sequence[Array | None],
        rows: Sequence[Row],
        along: Along = ALONE,
    ) -> None:
        """One step of PyTorch's Adam; the numbers are AdamNumbers.

        g = gradient (minus gradient with ``maximize``) + weight_decay * parameter, or, ``decoupled``, parameter *= 1 -
        lr * weight_decay; exp_avg += (1 - beta1) * (g - exp_avg); exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * g *
        g; parameter -= step_size * exp_avg / (sqrt(exp_avg_sq) * root_correction + eps). Where there is a
        ``max_exp_avg_sqs`` (AMSGrad) the largest exp_avg_sq so far stands in the root.
        """

    @abstractmethod
    def rmsprop_step(
        self,
        parameters: Sequence[Array],
        gradients: Sequence[Array],
        square_avgs: Sequence[Array],
        grad_avgs: Sequence[Array | None],
        momenta: Sequence[Array | None],
        rows: Sequence[Row],
        along: Along = ALONE,
    ) -> None:
        """One step of PyTorch's RMSprop; the numbers are RmspropNumbers.

        g as in :meth:`sgd_step`; square_avg = alpha * square_avg + (1 - alpha) * g * g; with a ``grad_avgs`` (centered)
        grad_avg += (1 - alpha) * (g - grad_avg) and s = square_avg - grad_avg**2, else s = square_avg; d = g / (sqrt(s)
        + eps); with a momentum buffer buffer = momentum * buffer + d and d is that; parameter -= lr * d.
        """

    @abstractmethod
    def adagrad_step(
        self,
        parameters: Sequence[Array],
        gradients: Sequence[Array],
        sums: Sequence[Array],
        rows: Sequence[Row],
        along: Along = ALONE,
    ) -> None:
        """One step of PyTorch's Adagrad; the numbers are AdagradNumbers.

        g as in :meth:`sgd_step`; sum += g * g; parameter -= lr * g / (sqrt(sum) + eps).
        """

    @abstractmethod
    def muon_step(
        self,
        parameters: Sequence[Array],
        gradients: Sequence[Array],
        momenta: Sequence[Array],
        steps: int,
        rows: Sequence[Row],
        along: Along = ALONE,
    ) -> None:
        """One step of Muon with ``steps`` Newton-Schulz iterations; the numbers are MuonNumbers.

        Arrays are (outer, K, inner), each a matrix of K rows and M = outer * inner columns. buffer = momentum * buffer
        + one_minus_momentum * gradient; d = momentum * buffer + one_minus_momentum * gradient with ``nesterov``, else
        the buffer; x = d / max(|d|, eps), then ``steps`` times x = a x + (b A + c A A) x with A = x x^T, all of the
        transposed where K > M; with ``renormalize`` parameter *= sqrt(K) / max(|parameter|, eps); parameter = kept *
        parameter - step_size * x.
        """

    @abstractmethod
    def moving_average_step(self, averages: Sequence[Array], parameters: Sequence[Array], row: Row) -> None:
        """average -= rate * (average - parameter), which leaves equal values as they are; AverageNumbers."""

    @abstractmethod
    def lookahead_step(self, slow: Sequence[Array], parameters: Sequence[Array], row: Row) -> None:
        """Where ``active``: slow -= rate * (slow - parameter), parameter = slow; LookaheadNumbers."""

    # ---- loss scaling ----
    # ``state`` (4,) holds the scale, 1 / scale, the steps since the scale changed, and how many were skipped.

    @abstractmethod
    def scale_by(self, x: Array, factor: Array) -> Array:
        """x * factor[0], like x; any shape, C-contiguous."""

    @abstractmethod
    def check_gradients(self, gradients: Sequence[Array], found_inf: Array, inverse_scale: Array | None = None) -> None:
        """Sets found_inf (1,) to 1 where any gradient is infinite or NaN, and leaves it alone otherwise; multiplies
        all gradients by inverse_scale (1,) first, in place, where that is given. One launch.
        """

    @abstractmethod
    def update_scale(self, state: Array, found_inf: Array, growth: float, backoff: float, interval: int) -> None:
        """After a step: where any of found_inf (n,) is not 0 the scale shrinks by ``backoff`` and the step is counted
        as skipped; after ``interval`` others in a row it grows by ``growth`` (unless that is infinite). found_inf is
        left at 0. One launch.
        """

    @abstractmethod
    def total_norm(self, arrays: Sequence[Array], order: float) -> Array:
        """(1,): (sum |x|**order)**(1/order) over all elements of one or more arrays, max |x| for infinity; NaN if any
        is NaN.

        The order of additions depends on the sizes alone. One launch.
        """

    @abstractmethod
    def clip_all(self, arrays: Sequence[Array], norm: Array, limit: float, small: float) -> None:
        """Multiplies all arrays by min(1, limit / (norm[0] + small)), in place, in one launch; NaN where norm is."""

    @abstractmethod
    def clamp_all(self, arrays: Sequence[Array], limit: float) -> None:
        """Brings all elements into [-limit, limit], in place, in one launch; NaN stays."""
