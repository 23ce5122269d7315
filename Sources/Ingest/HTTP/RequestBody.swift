import WebSocket
import Wire

/// The JSON bodies of the API, all optional fields of one shape.
struct RequestBody {
    var kind: String?
    var title: String?
    var name: String?
    var type: String?
    var role: String?
    var user: UserID?
    var bytes: Int64?
    var members: [UserID] = []
    var openHistory = false

    /// More than this in one call is made in several.
    static let membersMax = 10_000

    private enum Field: String, CaseIterable {
        case kind, title, name, type, role, user, bytes, members
        case openHistory = "open_history"
    }
    private static let fields = JSONFields<Field>()

    /// An absent body is an empty object.
    init(_ body: [UInt8]) throws(JSONError) {
        guard !body.isEmpty else { return }
        var reader = JSONReader(body.span)
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch Self.fields.find(name, in: body.span) {
            case .kind: kind = try reader.readText()
            case .title: title = try reader.readNull() ? nil : try reader.readText()
            case .name: self.name = try reader.readText()
            case .type: type = try reader.readText()
            case .role: role = try reader.readText()
            case .user: user = try reader.readID()
            case .bytes: bytes = try reader.readInt()
            case .openHistory: openHistory = try reader.readBool()
            case .members:
                try reader.beginArray()
                while try reader.nextElement() {
                    guard members.count < Self.membersMax else { throw JSONError(.badValue, at: reader.offset) }
                    members.append(try reader.readID())
                }
            case nil: try reader.skipValue()
            }
        }
        try reader.finish()
    }
}
