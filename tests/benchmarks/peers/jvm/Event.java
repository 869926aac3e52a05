import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.core.StreamWriteFeature;
import java.io.ByteArrayOutputStream;
import java.io.IOException;

/** An observation, and its forecast as JSON of the same content as the service's; plain fields, as Flink wants them. */
public final class Event {
    private static final JsonFactory JSON = JsonFactory.builder()
            .enable(StreamWriteFeature.USE_FAST_DOUBLE_WRITER)
            .enable(StreamReadFeature.USE_FAST_DOUBLE_PARSER)
            .build();

    public String uniqueId;
    public long ds;
    public float y = Float.NaN;

    static Event read(byte[] value) throws IOException {
        Event event = new Event();
        try (JsonParser parser = JSON.createParser(value)) {
            while (parser.nextToken() != null) {
                if (parser.currentToken() != JsonToken.FIELD_NAME) {
                    continue;
                }
                String name = parser.currentName();
                JsonToken token = parser.nextToken();
                switch (name) {
                    case "unique_id" -> event.uniqueId = parser.getText();
                    case "ds" -> event.ds = parser.getLongValue();
                    case "y" -> event.y = token == JsonToken.VALUE_NULL ? Float.NaN : parser.getFloatValue();
                    default -> parser.skipChildren();
                }
            }
        }
        return event;
    }

    byte[] reply(Model model, int row) throws IOException {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream(128 + 12 * model.horizon * model.levels);
        try (JsonGenerator out = JSON.createGenerator(bytes)) {
            out.writeStartObject();
            out.writeStringField("unique_id", uniqueId);
            out.writeNumberField("ds", ds);
            out.writeObjectFieldStart("quantiles");
            for (int level = 0; level < model.levels; level++) {
                out.writeArrayFieldStart(Integer.toString(level));
                for (int step = 0; step < model.horizon; step++) {
                    out.writeNumber(model.forecast(row, step, level));
                }
                out.writeEndArray();
            }
            out.writeEndObject();
            out.writeEndObject();
        }
        return bytes.toByteArray();
    }
}
