import Wire

/// The numbers in a benchmark's JSON, by path: `{"a":{"b":1}}` is `a.b`, and the elements of an array go by their name if
/// they have one: `[{"name":"x","value":2}]` is `x.value`.
struct Figures {
    private var values: [String: Double] = [:]
    private var name: String?

    init(json bytes: [UInt8]) throws(JSONError) {
        var reader = JSONReader(bytes.span)
        try read(&reader, path: "")
        try reader.finish()
    }

    init(_ values: [String: Double] = [:]) { self.values = values }

    subscript(path: String) -> Double? {
        get { values[path] }
        set { values[path] = newValue }
    }

    private mutating func read(_ reader: inout JSONReader, path: String) throws(JSONError) {
        switch try reader.peek() {
        case .number:
            let range = try reader.skipValue()
            values[path] = Double(String(decoding: [UInt8](copying: reader.bytes.extracting(range)), as: UTF8.self))
        case .object:
            try reader.beginObject()
            while let field = try reader.nextField() {
                let key = field.text(in: reader.bytes)
                if path.isEmpty, key == "name", try reader.peek() == .string {
                    name = try reader.readText()
                } else {
                    try read(&reader, path: Self.join(path, key))
                }
            }
        case .array:
            try reader.beginArray()
            var index = 0
            while try reader.nextElement() {
                var element = Figures()
                try element.read(&reader, path: "")
                let place = Self.join(path, element.name ?? "\(index)")
                for (key, value) in element.values { values[Self.join(place, key)] = value }
                index += 1
            }
        case .string, .bool, .null: try reader.skipValue()
        }
    }

    private static func join(_ path: String, _ key: String) -> String {
        path.isEmpty || key.isEmpty ? path + key : path + "." + key
    }
}
