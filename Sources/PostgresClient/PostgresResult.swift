internal import CPostgres
public import Wire

/// The rows of one statement. Column bytes are lent, not copied.
@safe
public struct PostgresResult: ~Copyable {
    private let raw: OpaquePointer

    init(owning raw: OpaquePointer) { unsafe self.raw = raw }

    deinit { unsafe PQclear(raw) }

    var status: ExecStatusType { unsafe PQresultStatus(raw) }

    public var rowCount: Int { Int(unsafe PQntuples(raw)) }
    public var columnCount: Int { Int(unsafe PQnfields(raw)) }
    public var isEmpty: Bool { rowCount == 0 }

    /// Rows inserted, updated, deleted, selected or copied.
    public var affectedRows: Int { Int(unsafe String(cString: PQcmdTuples(raw))) ?? 0 }

    /// The server's word for what it did, such as `INSERT 0 1`.
    public var commandTag: String { unsafe String(cString: PQcmdStatus(raw)) }

    public func columnName(_ column: Int) -> String {
        unsafe PQfname(raw, Int32(column)).map { unsafe String(cString: $0) } ?? ""
    }

    public func columnType(_ column: Int) -> UInt32 { unsafe PQftype(raw, Int32(column)) }

    public func columnIsBinary(_ column: Int) -> Bool { unsafe PQfformat(raw, Int32(column)) == 1 }

    public func isNull(_ row: Int, _ column: Int) -> Bool {
        check(row, column)
        return unsafe PQgetisnull(raw, Int32(row), Int32(column)) == 1
    }

    /// The value's bytes; none for null.
    @_lifetime(borrow self)
    public func bytes(_ row: Int, _ column: Int) -> Span<UInt8> {
        check(row, column)
        let length = Int(unsafe PQgetlength(raw, Int32(row), Int32(column)))
        let start = unsafe UnsafeRawPointer(PQgetvalue(raw, Int32(row), Int32(column)))!
            .assumingMemoryBound(to: UInt8.self)
        let span = unsafe Span(_unsafeStart: start, count: length)
        return unsafe _overrideLifetime(span, borrowing: self)
    }

    public func text(_ row: Int, _ column: Int) -> String? {
        isNull(row, column) ? nil : String(showing: bytes(row, column))
    }

    public func bool(_ row: Int, _ column: Int) -> Bool? {
        let bytes = bytes(row, column)
        guard bytes.count == 1, !isNull(row, column) else { return nil }
        return bytes[0] == 1 || bytes[0] == UInt8(ascii: "t")
    }

    /// Any integer type; `nil` for null and for what is not an integer.
    public func int(_ row: Int, _ column: Int) -> Int64? {
        let bytes = bytes(row, column)
        if isNull(row, column) { return nil }
        guard columnIsBinary(column) else { return Int64(String(showing: bytes)) }
        switch bytes.count {
        case 4 where columnType(column) == PostgresType.oid: return bytes.bigEndianInt & 0xffff_ffff
        case 2, 4, 8: return bytes.bigEndianInt
        default: return nil
        }
    }

    public func double(_ row: Int, _ column: Int) -> Double? {
        let bytes = bytes(row, column)
        if isNull(row, column) { return nil }
        guard columnIsBinary(column) else { return Double(String(showing: bytes)) }
        switch bytes.count {
        case 4: return Double(Float(bitPattern: UInt32(truncatingIfNeeded: bytes.bigEndianInt)))
        case 8: return Double(bitPattern: UInt64(bitPattern: bytes.bigEndianInt))
        default: return nil
        }
    }

    public func uuid(_ row: Int, _ column: Int) -> UUID? {
        let bytes = bytes(row, column)
        if isNull(row, column) { return nil }
        return columnIsBinary(column) ? UUID(binary: bytes) : UUID(text: bytes)
    }

    public func id<Kind>(_ row: Int, _ column: Int) -> ID<Kind>? { uuid(row, column).map { ID($0) } }

    /// A `timestamptz` or `timestamp` in milliseconds since 1970; binary results only.
    public func timestampMs(_ row: Int, _ column: Int) -> Int64? {
        let bytes = bytes(row, column)
        guard !isNull(row, column), columnIsBinary(column), bytes.count == 8 else { return nil }
        let microseconds = bytes.bigEndianInt
        return (microseconds >= 0 ? microseconds : microseconds - 999) / 1000 + PostgresType.epochMs
    }

    func error(statement: String?, code: PostgresError.Code = .server) -> PostgresError {
        unsafe PostgresError(result: raw, code: code, statement: statement)
    }

    private func check(_ row: Int, _ column: Int) {
        precondition(row >= 0 && row < rowCount && column >= 0 && column < columnCount, "no such row or column")
    }
}
