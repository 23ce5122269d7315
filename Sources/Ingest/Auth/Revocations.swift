import Synchronization
import Wire

/// Whose tokens are no longer good, as `chat.users` tells it. Only users of whom there is something to tell are kept: the
/// rest cost nothing. Asked when a session starts, never for a message.
final class Revocations: Sendable {
    /// Tokens made before this time are void; `.max` for a disabled user.
    private let validAfterMs = Mutex<[UserID: Int64]>([:])

    /// Those whose open sessions may have to end.
    func apply(_ rows: [UserRow]) -> Set<UserID> {
        var hit: Set<UserID> = []
        validAfterMs.withLock { table in
            for row in rows {
                let limit = row.disabled ? .max : row.tokensValidAfterMs
                if limit > table[row.user] ?? 0 { hit.insert(row.user) }
                table[row.user] = limit > 0 ? limit : nil
            }
        }
        return hit
    }

    func isRevoked(_ user: UserID, issuedAtMs: Int64) -> Bool {
        validAfterMs.withLock { table in table[user].map { issuedAtMs < $0 } ?? false }
    }
}
