/// Statements to be sent together.
public struct PostgresBatch: Sendable {
    enum Kind: Sendable { case sql, prepared, prepare }

    struct Statement: Sendable {
        var kind: Kind
        var text: String
        var parameters: EncodedParameters
        var name: String
        var binary: Bool

        func send(on handle: borrowing PostgresHandle) -> Bool {
            switch kind {
            case .sql: handle.send(text, parameters, binaryResults: binary)
            case .prepared: handle.send(prepared: name, parameters, binaryResults: binary)
            case .prepare: handle.sendPrepare(name, text, types: [])
            }
        }
    }

    private(set) var statements: [Statement] = []

    public init() {}

    public var count: Int { statements.count }

    public mutating func add(
        _ sql: String, _ parameters: [PostgresValue] = [], binary: Bool = true
    ) throws(PostgresError) {
        let encoded = try EncodedParameters(parameters)
        statements.append(
            Statement(kind: .sql, text: sql, parameters: encoded, name: PostgresError.shown(sql), binary: binary))
    }

    public mutating func add(
        prepared name: String, _ parameters: [PostgresValue] = [], binary: Bool = true
    ) throws(PostgresError) {
        let encoded = try EncodedParameters(parameters)
        statements.append(Statement(kind: .prepared, text: "", parameters: encoded, name: name, binary: binary))
    }

    public mutating func prepare(_ name: String, _ sql: String) throws(PostgresError) {
        let none = try EncodedParameters([])
        statements.append(Statement(kind: .prepare, text: sql, parameters: none, name: name, binary: true))
    }

    public mutating func removeAll() { statements.removeAll(keepingCapacity: true) }
}
