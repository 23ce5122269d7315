/// A value of `chat.rejected`: a record that could not be used, why, and where it came from.
///
///     {"reason":"malformed","detail":"…","source":{"topic":"…","partition":0,"offset":7},"record":…}
///
/// `record` is the record itself where it is JSON, else its text as a string.
public enum RejectedRecord {
    /// Longer records are cut: a rejection is for people to read.
    public static let bytesMax = 64 << 10

    public static func write(
        reason: String, detail: String = "", source: SourcePosition, record: Span<UInt8>?, to json: inout JSONWriter
    ) {
        json.beginObject()
        json.field("reason", reason)
        if !detail.isEmpty { json.field("detail", detail) }
        json.name("source")
        json.beginObject()
        json.field("topic", source.topic)
        json.field("partition", source.partition)
        json.field("offset", source.offset)
        json.endObject()
        if let record {
            if record.count <= bytesMax, isJSON(record) {
                json.field("record", raw: record)
            } else {
                json.field("record", String(showing: record.extracting(0..<min(record.count, bytesMax))))
            }
        } else {
            json.nullField("record")
        }
        json.endObject()
    }

    private static func isJSON(_ bytes: Span<UInt8>) -> Bool {
        do throws(JSONError) {
            var reader = JSONReader(bytes)
            try reader.skipValue()
            try reader.finish()
            return true
        } catch {
            return false
        }
    }
}
