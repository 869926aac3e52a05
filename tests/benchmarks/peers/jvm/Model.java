import ai.onnxruntime.OnnxJavaType;
import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OnnxValue;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import ai.onnxruntime.TensorInfo;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * The bundle, for a few events at a time, each of another stream; a state is one array of bytes.
 *
 * <p>Buffers and tensors are made once for each number of events, so that a step costs a call of ONNX Runtime and the
 * copies of its rows. Used by one thread.
 */
final class Model {
    /** A part of the state: its place in a row and in the buffers of the graph. */
    private record Part(String name, long[] shape, int bytes, int at, ByteBuffer in, ByteBuffer out) {}

    private record Tensors(Map<String, OnnxTensor> inputs, Map<String, OnnxValue> outputs) {}

    private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
    private final OrtSession session;
    private final List<Part> parts = new ArrayList<>();
    private final Map<String, TensorInfo> others = new HashMap<>();
    private final Map<String, ByteBuffer> given = new HashMap<>();
    private final Map<Integer, Tensors> bySize = new HashMap<>();
    private final ByteBuffer forecast;
    private final long[] forecastShape;
    final int rowBytes;
    final int horizon;
    final int levels;

    Model(String path, int most) throws OrtException {
        OrtSession.SessionOptions options = new OrtSession.SessionOptions();
        options.setIntraOpNumThreads(1);
        options.setInterOpNumThreads(1);
        session = environment.createSession(path, options);
        int at = 0;
        for (var input : session.getInputInfo().entrySet()) {
            TensorInfo info = (TensorInfo) input.getValue().getInfo();
            long[] shape = info.getShape().clone();
            int bytes = info.type.size;
            for (int axis = input.getKey().startsWith("state.") ? 1 : 0; axis < shape.length; axis++) {
                bytes *= shape[axis] < 0 ? most : (int) shape[axis];
            }
            if (input.getKey().startsWith("state.")) {
                parts.add(new Part(input.getKey(), shape, bytes, at, direct(bytes * most), direct(bytes * most)));
                at += bytes;
            } else {
                given.put(input.getKey(), direct(bytes));
            }
            others.put(input.getKey(), info);
        }
        rowBytes = at;
        for (String name : List.of("calibrate", "bounds")) {
            if (given.containsKey(name)) {
                given.get(name).putFloat(0, 1);
            }
        }
        for (int row = 0; row < most; row++) {
            given.get("slots").putLong(8 * row, row);
        }
        forecastShape = ((TensorInfo) session.getOutputInfo().get("forecast").getInfo()).getShape().clone();
        horizon = (int) forecastShape[1];
        levels = (int) forecastShape[2];
        forecast = direct(4 * most * horizon * levels);
    }

    private static ByteBuffer direct(int bytes) {
        return ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder());
    }

    /** Puts an event and the state of its stream, null for a new one, into row {@code row}. */
    void give(int row, long ds, float y, byte[] state) {
        given.get("ds").putLong(8 * row, ds);
        given.get("y").putFloat(4 * row, y);
        byte[] from = state == null ? new byte[rowBytes] : state;
        for (Part part : parts) {
            part.in.put(row * part.bytes, from, part.at, part.bytes);
        }
    }

    /** Steps rows 0 to {@code rows - 1}. */
    void step(int rows) throws OrtException {
        Tensors tensors = bySize.get(rows);
        if (tensors == null) {
            tensors = tensors(rows);
            bySize.put(rows, tensors);
        }
        session.run(tensors.inputs, Set.of(), tensors.outputs).close();
    }

    /** Returns the next state of the stream in a row. */
    byte[] state(int row) {
        byte[] to = new byte[rowBytes];
        for (Part part : parts) {
            part.out.get(row * part.bytes, to, part.at, part.bytes);
        }
        return to;
    }

    /** Returns a number of the forecast of a row. */
    float forecast(int row, int step, int level) {
        return forecast.getFloat(4 * ((row * horizon + step) * levels + level));
    }

    private Tensors tensors(int rows) throws OrtException {
        Map<String, OnnxTensor> inputs = new HashMap<>();
        Map<String, OnnxValue> outputs = new HashMap<>();
        for (var buffer : given.entrySet()) {
            TensorInfo info = others.get(buffer.getKey());
            inputs.put(buffer.getKey(), tensor(buffer.getValue(), info.getShape().clone(), info.type, rows));
        }
        for (Part part : parts) {
            OnnxJavaType type = others.get(part.name).type;
            inputs.put(part.name, tensor(part.in, part.shape.clone(), type, rows));
            outputs.put(part.name + ".next", tensor(part.out, part.shape.clone(), type, rows));
        }
        outputs.put("forecast", tensor(forecast, forecastShape.clone(), OnnxJavaType.FLOAT, rows));
        return new Tensors(inputs, outputs);
    }

    private OnnxTensor tensor(ByteBuffer buffer, long[] shape, OnnxJavaType type, int rows) throws OrtException {
        int bytes = type.size;
        for (int axis = 0; axis < shape.length; axis++) {
            shape[axis] = shape[axis] < 0 ? rows : shape[axis];
            bytes *= (int) shape[axis];
        }
        ByteBuffer part = buffer.duplicate().order(ByteOrder.nativeOrder());
        part.limit(bytes);
        return OnnxTensor.createTensor(environment, part, shape, type);
    }
}
